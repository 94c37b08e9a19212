//! SSH adapter of the gateway.

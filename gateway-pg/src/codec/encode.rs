//! Messages the gateway itself originates, through pgwire's encoders (its decoders are not used: they read past their frame).

use bytes::{Bytes, BytesMut};
use pgwire::messages::Message;
use pgwire::messages::extendedquery::{Bind, Close, Describe, Execute, Flush, Parse, Sync};
use pgwire::messages::response::{
    CommandComplete, ErrorResponse, NoticeResponse, ReadyForQuery, TransactionStatus as Status,
};
use pgwire::messages::simplequery::Query;
use pgwire::messages::startup::{
    Authentication, BackendKeyData, NegotiateProtocolVersion, ParameterStatus, SecretKey,
};

use super::backend::TransactionStatus;

/// Appends a message. pgwire refuses only what is over its limits; our messages are far below them, and one that is not is left out
/// whole, which the other side notices as a missing message.
fn put<M: Message>(out: &mut BytesMut, message: &M) {
    let start = out.len();
    if let Err(error) = message.encode(out) {
        out.truncate(start);
        tracing::error!(%error, "a message of the gateway's own could not be encoded");
    }
}

/// NUL cannot stand inside a protocol string; it would end it early.
fn clean(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// Fields of an error or notice, by type byte.
pub type Fields = Vec<(u8, String)>;

/// ErrorResponse.
pub fn error(out: &mut BytesMut, fields: Fields) {
    let fields = fields.into_iter().map(|(kind, text)| (kind, clean(&text))).collect();
    put(out, &ErrorResponse::new(fields));
}

/// NoticeResponse.
pub fn notice(out: &mut BytesMut, fields: Fields) {
    let fields = fields.into_iter().map(|(kind, text)| (kind, clean(&text))).collect();
    put(out, &NoticeResponse::new(fields));
}

/// CommandComplete.
pub fn command_complete(out: &mut BytesMut, tag: &str) {
    put(out, &CommandComplete::new(clean(tag)));
}

/// ReadyForQuery.
pub fn ready(out: &mut BytesMut, status: TransactionStatus) {
    let status = match status {
        TransactionStatus::Idle => Status::Idle,
        TransactionStatus::Open => Status::Transaction,
        TransactionStatus::Failed => Status::Error,
    };
    put(out, &ReadyForQuery::new(status));
}

/// AuthenticationOk.
pub fn authentication_ok(out: &mut BytesMut) {
    put(out, &Authentication::Ok);
}

/// AuthenticationCleartextPassword.
pub fn ask_password(out: &mut BytesMut) {
    put(out, &Authentication::CleartextPassword);
}

/// AuthenticationSASL with these mechanisms.
pub fn ask_sasl(out: &mut BytesMut, mechanisms: &[&str]) {
    put(out, &Authentication::SASL(mechanisms.iter().map(|&m| m.to_owned()).collect()));
}

/// AuthenticationSASLContinue.
pub fn sasl_continue(out: &mut BytesMut, data: Bytes) {
    put(out, &Authentication::SASLContinue(data));
}

/// ParameterStatus.
pub fn parameter_status(out: &mut BytesMut, name: &str, value: &str) {
    put(out, &ParameterStatus::new(clean(name), clean(value)));
}

/// BackendKeyData with a key of any allowed length.
pub fn key_data(out: &mut BytesMut, pid: u32, key: &[u8]) {
    let secret = match <[u8; 4]>::try_from(key) {
        Ok(four) => SecretKey::I32(i32::from_be_bytes(four)),
        Err(_) => SecretKey::Bytes(Bytes::copy_from_slice(key)),
    };
    put(out, &BackendKeyData::new(pid.cast_signed(), secret));
}

/// NegotiateProtocolVersion: the newest version spoken and the `_pq_.` options not known.
pub fn negotiate_version(out: &mut BytesMut, version: u32, unknown: Vec<String>) {
    put(out, &NegotiateProtocolVersion::new(version.cast_signed(), unknown));
}

/// Query.
pub fn query(out: &mut BytesMut, text: &str) {
    put(out, &Query::new(clean(text)));
}

fn name(name: &str) -> Option<String> {
    (!name.is_empty()).then(|| name.to_owned())
}

/// Parse without parameter types.
pub fn parse(out: &mut BytesMut, statement: &str, text: &str) {
    put(out, &Parse::new(name(statement), clean(text), Vec::new()));
}

/// Parse with the object ids of its parameters' types.
pub fn parse_typed(out: &mut BytesMut, statement: &str, text: &str, types: &[u32]) {
    put(out, &Parse::new(name(statement), clean(text), types.to_vec()));
}

/// Bind with text parameters and text results.
pub fn bind(out: &mut BytesMut, portal: &str, statement: &str, parameters: Vec<Option<Bytes>>) {
    put(out, &Bind::new(name(portal), name(statement), Vec::new(), parameters, Vec::new()));
}

/// Bind of the unnamed statement to the unnamed portal, with parameters in these formats (0 text, 1 binary) and text results.
pub fn bind_formatted(out: &mut BytesMut, formats: Vec<i16>, parameters: Vec<Option<Bytes>>) {
    put(out, &Bind::new(None, None, formats, parameters, Vec::new()));
}

/// Describe of a portal.
pub fn describe_portal(out: &mut BytesMut, portal: &str) {
    put(out, &Describe::new(b'P', name(portal)));
}

/// Describe of a statement.
pub fn describe_statement(out: &mut BytesMut, statement: &str) {
    put(out, &Describe::new(b'S', name(statement)));
}

/// Execute without a row limit.
pub fn execute(out: &mut BytesMut, portal: &str) {
    put(out, &Execute::new(name(portal), 0));
}

/// Close of a statement.
pub fn close_statement(out: &mut BytesMut, statement: &str) {
    put(out, &Close::new(b'S', name(statement)));
}

/// Close of a portal.
pub fn close_portal(out: &mut BytesMut, portal: &str) {
    put(out, &Close::new(b'P', name(portal)));
}

/// Flush.
pub fn flush(out: &mut BytesMut) {
    put(out, &Flush::new());
}

/// Sync.
pub fn sync(out: &mut BytesMut) {
    put(out, &Sync::new());
}

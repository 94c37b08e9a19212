//! What is a command, and what it may change.

use bytes::Bytes;
use gateway_core::operation::{Effect, Resource};

use super::parse;

#[test]
fn what_is_not_exactly_a_command_is_not_understood() {
    let target = Resource::target("store");
    for good in ["GET a", "SET a ", "SET a b c", "DEL a", "KEYS"] {
        assert!(parse(&target, &Bytes::from(good)).is_ok(), "{good}");
    }
    let bad = [
        "", "GET", "GET ", "GET a b", "GET  a", "get a", "SET a", "SET  a", "KEYS ", "DEL a\r", "SET a \0",
        "EVAL x",
    ];
    for bad in bad {
        assert!(parse(&target, &Bytes::from(bad)).is_err(), "{bad:?}");
    }
    assert!(parse(&target, &Bytes::from_static(b"GET \xff")).is_err());
}

#[test]
fn only_reads_are_reads() {
    let effect = |line: &'static str| parse(&Resource::target("store"), &Bytes::from(line)).unwrap().effect;
    assert_eq!([effect("GET a"), effect("KEYS")], [Effect::Read, Effect::Read]);
    assert_eq!([effect("SET a b"), effect("DEL a")], [Effect::Write, Effect::Write]);
}

//! From a line to what it does to what.

use std::borrow::Cow;

use bytes::Bytes;
use gateway_core::error::{Denial, DenialCode};
use gateway_core::operation::{Access, Action, Effect, Facts, Operation, Resource};

/// The policy schema fragment of this protocol.
pub const SCHEMA: &str = include_str!("../schema/keyvalue.cedarschema");

/// The operation that a line is. Keys are names: policy and recordings see them as they are. Values are recorded by length only.
///
/// # Errors
/// The line is not exactly one of the four commands; nothing of it is guessed.
pub(crate) fn parse(target: &Resource, line: &Bytes) -> Result<Operation, Denial> {
    let text = std::str::from_utf8(line).unwrap_or_default();
    let mut words = text.splitn(3, ' ');
    let command = (words.next().unwrap_or_default(), words.next(), words.next());
    let clean = !text.contains(char::is_control) && command.1 != Some("");
    match command {
        ("GET", Some(key), None) if clean => {
            Ok(operation("get_key", Effect::Read, target.child("Key", key), line))
        }
        ("DEL", Some(key), None) if clean => {
            Ok(operation("delete_key", Effect::Write, target.child("Key", key), line))
        }
        ("KEYS", None, None) if clean => Ok(operation("list_keys", Effect::Read, target.clone(), line)),
        ("SET", Some(key), Some(value)) if clean => {
            let mut set = operation("set_key", Effect::Write, target.child("Key", key), line);
            let bytes = i64::try_from(value.len()).unwrap_or(i64::MAX);
            set.facts = Facts::from([(Cow::Borrowed("value_bytes"), bytes.into())]).into();
            set.recorded = Some(format!("SET {key} ({bytes} bytes)"));
            Ok(set)
        }
        _ => Err(Denial::new(DenialCode::NotUnderstood, "this line is not a command")
            .with_hint("send `GET key`, `SET key value`, `DEL key` or `KEYS`")),
    }
}

fn operation(action: &'static str, effect: Effect, resource: Resource, line: &Bytes) -> Operation {
    let mut operation = Operation::new(action, line.clone());
    operation.accesses = [Access::new(Action::new(action), resource)].into();
    operation.effect = effect;
    operation
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_exactly_a_command_is_not_understood() {
        let target = Resource::target("store");
        for good in ["GET a", "SET a ", "SET a b c", "DEL a", "KEYS"] {
            assert!(parse(&target, &Bytes::from(good)).is_ok(), "{good}");
        }
        let bad = [
            "", "GET", "GET ", "GET a b", "GET  a", "get a", "SET a", "SET  a", "KEYS ", "DEL a\r",
            "SET a \0", "EVAL x",
        ];
        for bad in bad {
            assert!(parse(&target, &Bytes::from(bad)).is_err(), "{bad:?}");
        }
        assert!(parse(&target, &Bytes::from_static(b"GET \xff")).is_err());
    }

    #[test]
    fn only_reads_are_reads() {
        let effect =
            |line: &'static str| parse(&Resource::target("store"), &Bytes::from(line)).unwrap().effect;
        assert_eq!([effect("GET a"), effect("KEYS")], [Effect::Read, Effect::Read]);
        assert_eq!([effect("SET a b"), effect("DEL a")], [Effect::Write, Effect::Write]);
    }
}

//! One request a line, one answer a line, both JSON.

use gateway_core::approval::{AccessRequest, RequestId};
use gateway_core::credentials::Secret;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Largest request line, in bytes. Tokens have at most 64 KiB by default; the rest is for a comment.
pub(super) const MAX_REQUEST_BYTES: u64 = 96 * 1024;
/// Largest answer line, in bytes. One request with its exact texts has at most some hundred KiB; a list has
/// [`MAX_LISTED`] of them without.
pub(super) const MAX_ANSWER_BYTES: u64 = 64 * 1024 * 1024;
/// Requests in one list: more than anybody reads.
pub(super) const MAX_LISTED: usize = 200;
/// Longest comment of a review, in bytes.
pub(super) const MAX_COMMENT_BYTES: usize = 4096;

/// A reviewer's request. Every one carries the token: a connection has no identity.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Request {
    #[serde(serialize_with = "show_token", deserialize_with = "take_token")]
    pub(super) token: Secret<String>,
    pub(super) ask: Ask,
}

/// What a reviewer wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "action")]
pub(crate) enum Ask {
    /// The requests they may know of, newest first, exact texts blanked.
    List,
    /// One request in full.
    Show { id: RequestId },
    /// Let it run.
    Approve { id: RequestId, comment: Option<String> },
    /// Do not.
    Reject { id: RequestId, comment: Option<String> },
}

/// What the gateway answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// To a list.
    Requests(Vec<AccessRequest>),
    /// To everything about one request; after a review, as it stands then.
    Request(Box<AccessRequest>),
    /// It was not done.
    Refused(Refusal),
}

/// Why not, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refusal {
    /// For programs.
    pub(crate) code: RefusalCode,
    /// For people.
    pub(crate) message: String,
}

/// The stable word for a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RefusalCode {
    /// Not a request that can be understood.
    BadRequest,
    /// The token was not accepted.
    Unauthenticated,
    /// The token is not a person's.
    NotAPerson,
    /// The approver said no.
    Refused,
    /// The gateway could not do it; nothing happened.
    Failed,
}

fn show_token<S: Serializer>(token: &Secret<String>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(token.expose())
}

fn take_token<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret<String>, D::Error> {
    String::deserialize(deserializer).map(Secret::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_no_room_for_surprises() {
        let good = r#"{"token":"t","ask":{"action":"list"}}"#;
        assert_eq!(serde_json::from_str::<Request>(good).unwrap().ask, Ask::List);
        for bad in [
            r#"{"ask":{"action":"list"}}"#,
            r#"{"token":"t","ask":{"action":"list"},"as":"root"}"#,
            r#"{"token":"t","ask":{"action":"approve","id":"00000000000000000000000000000000","quorum":0}}"#,
            r#"{"token":"t","ask":{"action":"approve","id":"1"}}"#,
            r#"{"token":"t","token":"u","ask":{"action":"list"}}"#,
        ] {
            assert!(serde_json::from_str::<Request>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_token_is_not_printed() {
        let request = Request { token: "canary".into(), ask: Ask::List };
        assert!(!format!("{request:?}").contains("canary"));
    }
}

//! The first packet of a connection.

use gateway_pg::codec::startup::{decode, packet_length};

use super::{Target, kind, outcome};

pub const TARGET: Target = Target {
    name: "startup",
    run,
    words: &[
        b"\0\x03\0\0",
        b"\0\x03\0\x02",
        b"user\0",
        b"database\0",
        b"options\0",
        b"replication\0",
        b"_pq_.x\0",
        b"\x04\xd2\x16\x2f",
        b"\x04\xd2\x16\x2e",
        b"client_encoding\0",
        b"-c search_path=a\0",
    ],
};

fn run(input: &[u8]) -> u64 {
    let length = match packet_length(input) {
        Ok(Some(length)) => length,
        Ok(None) => return outcome("more"),
        Err(error) => return outcome(kind(&error)),
    };
    let Some(packet) = input.get(..length) else { return outcome("part") };
    match decode(packet) {
        Ok(startup) => outcome(format!("{startup:?}").chars().take(40).collect::<String>()),
        Err(error) => outcome(kind(&error)),
    }
}

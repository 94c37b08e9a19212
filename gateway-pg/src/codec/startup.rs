//! The first packet of a connection, which has no type byte.

use std::collections::BTreeMap;

use super::{ProtocolError, Reader};

/// Longest startup packet, as in the server (`MAX_STARTUP_PACKET_LENGTH`).
pub const MAX_STARTUP_BYTES: usize = 10_000;

/// Protocol 3.0.
pub const PROTOCOL_3_0: u32 = 3 << 16;
/// Protocol 3.2, the newest spoken here.
pub const PROTOCOL_3_2: u32 = 3 << 16 | 2;

const CANCEL: u32 = 1234 << 16 | 5678;
const SSL: u32 = 1234 << 16 | 5679;
const GSSENC: u32 = 1234 << 16 | 5680;

/// A first packet, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Startup {
    /// SSLRequest.
    Ssl,
    /// GSSENCRequest.
    GssEnc,
    /// CancelRequest: process id and key.
    Cancel {
        /// The process id the gateway gave out.
        pid: u32,
        /// The key the gateway gave out: 4 bytes in protocol 3.0, up to 256 in 3.2.
        key: Vec<u8>,
    },
    /// StartupMessage.
    Session {
        /// The requested protocol version.
        version: u32,
        /// Parameters in order of their names; a repeated name is an error.
        parameters: BTreeMap<String, String>,
    },
}

/// How long the packet at the start of `buffer` is in all, if its length is there.
///
/// # Errors
/// An impossible length.
pub fn packet_length(buffer: &[u8]) -> Result<Option<usize>, ProtocolError> {
    let Some((length, _)) = buffer.split_first_chunk::<4>() else { return Ok(None) };
    let length = i32::from_be_bytes(*length);
    match usize::try_from(length) {
        Ok(n) if (8..=MAX_STARTUP_BYTES).contains(&n) => Ok(Some(n)),
        _ => Err(ProtocolError::BadLength { tag: b'0', length: length.into(), limit: MAX_STARTUP_BYTES }),
    }
}

/// Decodes a whole packet, length included.
///
/// # Errors
/// Malformed packets and unknown protocol majors.
pub fn decode(packet: &[u8]) -> Result<Startup, ProtocolError> {
    let mut reader = Reader::new(packet, "startup");
    reader.u32()?;
    let startup = match reader.u32()? {
        SSL => Startup::Ssl,
        GSSENC => Startup::GssEnc,
        CANCEL => {
            let pid = reader.u32()?;
            let key = reader.rest().to_vec();
            if !(4..=256).contains(&key.len()) {
                return Err(reader.malformed());
            }
            Startup::Cancel { pid, key }
        }
        version if version >> 16 == 3 => Startup::Session { version, parameters: parameters(&mut reader)? },
        _ => return Err(ProtocolError::Malformed("startup (protocol version)")),
    };
    reader.finish().map(|()| startup)
}

fn parameters(reader: &mut Reader<'_>) -> Result<BTreeMap<String, String>, ProtocolError> {
    let mut parameters = BTreeMap::new();
    loop {
        let name = reader.c_str()?;
        if name.is_empty() {
            return Ok(parameters);
        }
        let value = reader.c_str()?.to_owned();
        if parameters.insert(name.to_owned(), value).is_some() {
            return Err(ProtocolError::Malformed("startup (repeated parameter)"));
        }
    }
}

/// What protocol version is spoken after a client asked for `requested`, and whether it must be told so
/// (NegotiateProtocolVersion).
pub const fn negotiate(requested: u32) -> (u32, bool) {
    match requested {
        PROTOCOL_3_0 | PROTOCOL_3_2 => (requested, false),
        // 3.1 was never used; a client asking for it gets 3.0.
        r if r < PROTOCOL_3_2 => (PROTOCOL_3_0, true),
        _ => (PROTOCOL_3_2, true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(code: u32, rest: &[u8]) -> Vec<u8> {
        let mut packet = (rest.len() as u32 + 8).to_be_bytes().to_vec();
        packet.extend_from_slice(&code.to_be_bytes());
        packet.extend_from_slice(rest);
        packet
    }

    #[test]
    fn reads_a_startup_message() {
        let Ok(Startup::Session { version, parameters }) =
            decode(&packet(PROTOCOL_3_0, b"user\0a\0database\0d\0\0"))
        else {
            panic!()
        };
        assert_eq!((version, parameters["user"].as_str()), (PROTOCOL_3_0, "a"));
    }

    #[test]
    fn refuses_trailing_bytes_repeats_and_old_protocols() {
        assert!(decode(&packet(PROTOCOL_3_0, b"user\0a\0\0x")).is_err());
        assert!(decode(&packet(PROTOCOL_3_0, b"user\0a\0user\0b\0\0")).is_err());
        assert!(decode(&packet(2 << 16, b"")).is_err());
        assert!(decode(&packet(SSL, b"x")).is_err());
        assert!(decode(&packet(CANCEL, b"\0\0\0\x01\0\0")).is_err());
    }

    #[test]
    fn negotiates_down_only() {
        assert_eq!(negotiate(3 << 16 | 9999), (PROTOCOL_3_2, true));
        assert_eq!(negotiate(PROTOCOL_3_2), (PROTOCOL_3_2, false));
        assert_eq!(negotiate(3 << 16 | 1), (PROTOCOL_3_0, true));
    }

    #[test]
    fn lengths_are_bounded() {
        for bad in [0, 7, -1, 10_001] {
            assert!(packet_length(&i32::to_be_bytes(bad)).is_err(), "{bad}");
        }
    }
}

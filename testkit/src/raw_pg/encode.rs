//! Frontend messages as bytes (PostgreSQL documentation, "Message Formats"). None checks what it is given.

/// A frame with a right length: tag, length, body.
///
/// # Panics
/// When the body does not fit a length of 32 bits.
pub fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.extend(untagged(body));
    bytes
}

/// StartupMessage of version 3.0.
pub fn startup(parameters: &[(&str, &str)]) -> Vec<u8> {
    startup_version(3 << 16, parameters)
}

/// StartupMessage of any version: the major one in the upper 16 bits.
pub fn startup_version(version: u32, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    for (name, value) in parameters {
        body.extend(text(name));
        body.extend(text(value));
    }
    body.push(0);
    untagged(&body)
}

/// SSLRequest.
pub fn ssl_request() -> Vec<u8> {
    untagged(&80_877_103_u32.to_be_bytes())
}

/// GSSENCRequest.
pub fn gssenc_request() -> Vec<u8> {
    untagged(&80_877_104_u32.to_be_bytes())
}

/// CancelRequest, to be sent on a connection of its own.
pub fn cancel_request(process: u32, secret: &[u8]) -> Vec<u8> {
    untagged(&[&80_877_102_u32.to_be_bytes(), &process.to_be_bytes()[..], secret].concat())
}

/// PasswordMessage.
pub fn password(secret: &str) -> Vec<u8> {
    frame(b'p', &text(secret))
}

/// Query.
pub fn query(sql: &str) -> Vec<u8> {
    frame(b'Q', &text(sql))
}

/// Parse, with the OIDs of the parameter types, 0 for those the server shall choose.
pub fn parse(statement: &str, sql: &str, types: &[u32]) -> Vec<u8> {
    let mut body = [text(statement), text(sql)].concat();
    body.extend(count(types.len()));
    body.extend(types.iter().flat_map(|oid| oid.to_be_bytes()));
    frame(b'P', &body)
}

/// A Bind message; the default is the unnamed portal of the unnamed statement with no parameters, results as text.
#[derive(Debug, Clone, Default)]
pub struct Bind<'a> {
    /// The portal to make.
    pub portal: &'a str,
    /// The prepared statement to bind.
    pub statement: &'a str,
    /// Format codes of the parameters: none for all text, one for all, or one each. 0 is text, 1 binary.
    pub formats: &'a [u16],
    /// The values, `None` for NULL.
    pub values: &'a [Option<&'a [u8]>],
    /// Format codes of the results, as those of the parameters.
    pub result_formats: &'a [u16],
}

impl Bind<'_> {
    /// The message as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = [text(self.portal), text(self.statement), codes(self.formats)].concat();
        body.extend(count(self.values.len()));
        for value in self.values {
            match value {
                None => body.extend((-1_i32).to_be_bytes()),
                Some(bytes) => {
                    body.extend(size(bytes.len()).to_be_bytes());
                    body.extend_from_slice(bytes);
                }
            }
        }
        body.extend(codes(self.result_formats));
        frame(b'B', &body)
    }
}

/// Describe: `kind` is `S` for a statement, `P` for a portal.
pub fn describe(kind: u8, name: &str) -> Vec<u8> {
    frame(b'D', &[&[kind][..], &text(name)].concat())
}

/// Execute: at most this many rows, 0 for all.
pub fn execute(portal: &str, rows: u32) -> Vec<u8> {
    frame(b'E', &[&text(portal)[..], &rows.to_be_bytes()].concat())
}

/// Close: `kind` is `S` for a statement, `P` for a portal.
pub fn close(kind: u8, name: &str) -> Vec<u8> {
    frame(b'C', &[&[kind][..], &text(name)].concat())
}

/// Sync.
pub fn sync() -> Vec<u8> {
    frame(b'S', &[])
}

/// Flush.
pub fn flush() -> Vec<u8> {
    frame(b'H', &[])
}

/// Terminate.
pub fn terminate() -> Vec<u8> {
    frame(b'X', &[])
}

/// CopyData.
pub fn copy_data(bytes: &[u8]) -> Vec<u8> {
    frame(b'd', bytes)
}

/// CopyDone.
pub fn copy_done() -> Vec<u8> {
    frame(b'c', &[])
}

/// CopyFail, with the reason the server is to report.
pub fn copy_fail(reason: &str) -> Vec<u8> {
    frame(b'f', &text(reason))
}

fn untagged(body: &[u8]) -> Vec<u8> {
    let mut bytes = size(body.len() + 4).to_be_bytes().to_vec();
    bytes.extend_from_slice(body);
    bytes
}

fn text(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

fn codes(codes: &[u16]) -> Vec<u8> {
    let mut bytes = count(codes.len()).to_vec();
    bytes.extend(codes.iter().flat_map(|code| code.to_be_bytes()));
    bytes
}

/// The server reads counts as unsigned, so that 65,535 parameters are possible.
fn count(count: usize) -> [u8; 2] {
    u16::try_from(count).expect("a test counts to 65,535 at most, write more by hand").to_be_bytes()
}

fn size(size: usize) -> u32 {
    u32::try_from(size).expect("a test sends less than 4 GiB in one message")
}

//! From bytes to text and control sequences (ECMA-48 section 5, as common terminals read it).
//!
//! The states are those of Paul Williams' parser for DEC terminals. A parser crate would tell what is drawn, but not from which bytes,
//! and most hide where a sequence that they ignore ends; tests compare this one with such a crate.

/// Longest control sequence, in bytes. Behind it the rest is taken for text again: an unfinished one must not swallow a stream.
pub(super) const MAX_SEQUENCE_BYTES: usize = 4096;

/// A control sequence with more bytes than this may hold more than parameters.
const MAX_CLEAN_BYTES: usize = 64;

/// Digits of a parameter that can be one: columns, modes, colours.
const MAX_CLEAN_DIGITS: usize = 4;

/// Most cells that one sequence moves over or repeats here; wider gaps separate what stands on both sides anyway.
const MAX_CELLS: usize = 64;

/// What a control does to the line it stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing: colours, modes, strings.
    None,
    /// The cursor goes back over so many cells.
    Back(usize),
    /// The cursor goes on over so many cells.
    Forward(usize),
    /// The character before is drawn so many times more.
    Repeat(usize),
    /// The cursor goes elsewhere.
    Break,
}

/// What a control is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Drawing, moving, colours, modes.
    Plain,
    /// A string for the terminal itself: titles, links, colours by name, device strings.
    String,
    /// Writes or asks for the clipboard (xterm control sequences, OSC 52).
    Clipboard,
    /// Moves or asks about the window, or has the terminal answer by a text of its own.
    Window,
}

/// A whole control sequence or a single control character.
#[derive(Clone, Copy, Debug)]
pub(super) struct Control<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) effect: Effect,
    pub(super) kind: Kind,
    /// Too short to hold a value.
    pub(super) clean: bool,
    /// Something else broke it off: what comes behind that could complete it.
    pub(super) unfinished: bool,
}

/// Ends whatever sequence a terminal is in, and does nothing else (ECMA-48, 8.3.6).
pub(super) const CANCELLATION: Control<'static> =
    Control { bytes: &[CANCEL], effect: Effect::None, kind: Kind::Plain, clean: true, unfinished: false };

/// Gets what is in the stream, in order and without gaps.
pub(super) trait Tokens {
    fn text(&mut self, bytes: &[u8]);
    fn control(&mut self, control: Control<'_>);
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Ground,
    /// After a carriage return: with a line feed it is a line end.
    Return,
    /// After 0xC2, which begins the C1 controls in UTF-8.
    Lead,
    Escape,
    Intermediate,
    Sequence,
    /// In a string; whether it is an operating system command.
    String(bool),
    StringEscape(bool),
    StringLead(bool),
}

/// The parser of one stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Parser {
    state: State,
    /// The bytes of the sequence under way.
    sequence: Vec<u8>,
}

const BACKSPACE: u8 = 0x08;
const ENQUIRY: u8 = 0x05;
const BELL: u8 = 0x07;
const CANCEL: u8 = 0x18;
const SUBSTITUTE: u8 = 0x1a;
const ESCAPE: u8 = 0x1b;
const DELETE: u8 = 0x7f;
/// First byte of U+0080 to U+009F, the C1 controls, in UTF-8.
pub(super) const LEAD: u8 = 0xc2;

/// Whether a byte may be more than text. Tabs and line ends are text here.
pub(super) const fn is_special(byte: u8) -> bool {
    (byte < 0x20 && !matches!(byte, b'\t' | b'\n' | 0x0b | 0x0c)) || byte == DELETE || byte == LEAD
}

impl Parser {
    /// Whether nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.state == State::Ground
    }

    pub(super) fn parse(&mut self, mut bytes: &[u8], to: &mut impl Tokens) {
        while let Some((&byte, rest)) = bytes.split_first() {
            let text = bytes.iter().position(|b| is_special(*b)).unwrap_or(bytes.len());
            if self.state == State::Ground
                && let Some((run, rest)) = bytes.split_at_checked(text).filter(|(run, _)| !run.is_empty())
            {
                to.text(run);
                bytes = rest;
            } else {
                self.step(byte, to);
                bytes = rest;
            }
        }
    }

    /// The stream ends: what is under way is given out as a control.
    pub(super) fn finish(&mut self, to: &mut impl Tokens) {
        match self.state {
            State::Ground => {}
            State::Return => single(b'\r', to),
            State::Lead => to.text(&[LEAD]),
            State::String(_) | State::StringEscape(_) | State::StringLead(_) => {
                self.break_off(Kind::String, to)
            }
            _ => self.break_off(Kind::Plain, to),
        }
        self.state = State::Ground;
    }

    fn step(&mut self, byte: u8, to: &mut impl Tokens) {
        self.state = match self.state {
            State::Ground => self.ground(byte, to),
            State::Return if byte == b'\n' => {
                to.text(b"\r\n");
                State::Ground
            }
            State::Return => {
                single(b'\r', to);
                self.ground(byte, to)
            }
            State::Lead if (0x80..0xa0).contains(&byte) => {
                self.sequence = vec![LEAD, byte];
                self.introduced(byte - 0x40, to)
            }
            State::Lead => {
                to.text(&[LEAD]);
                self.ground(byte, to)
            }
            State::Escape => self.escape(byte, to),
            State::Intermediate | State::Sequence => self.parameters(byte, to),
            State::String(command) => self.string(command, byte, to),
            State::StringEscape(_) if byte == b'\\' => self.push_and_end(byte, Kind::String, to),
            State::StringEscape(_) => {
                // Any other sequence ends the string, too.
                self.sequence.pop();
                self.break_off(Kind::String, to);
                self.sequence.push(ESCAPE);
                self.escape(byte, to)
            }
            State::StringLead(_) if byte == 0x9c => self.push_and_end(byte, Kind::String, to),
            State::StringLead(command) => self.string(command, byte, to),
        };
    }

    fn ground(&mut self, byte: u8, to: &mut impl Tokens) -> State {
        match byte {
            b'\r' => State::Return,
            LEAD => State::Lead,
            ESCAPE => {
                self.sequence.push(byte);
                State::Escape
            }
            byte if is_special(byte) => {
                single(byte, to);
                State::Ground
            }
            byte => {
                to.text(&[byte]);
                State::Ground
            }
        }
    }

    /// The byte behind an ESC.
    fn escape(&mut self, byte: u8, to: &mut impl Tokens) -> State {
        match byte {
            ESCAPE => {
                self.break_off(Kind::Plain, to);
                self.ground(byte, to)
            }
            CANCEL | SUBSTITUTE => self.push_and_end(byte, Kind::Plain, to),
            // Control characters in a sequence act at once and do not end it.
            0..0x20 | DELETE => self.keep(byte, State::Escape, to),
            0x80.. => {
                self.break_off(Kind::Plain, to);
                self.ground(byte, to)
            }
            _ => {
                self.sequence.push(byte);
                self.introduced(byte, to)
            }
        }
    }

    /// What a sequence is, by the byte behind ESC or the C1 control that stands for both.
    fn introduced(&mut self, byte: u8, to: &mut impl Tokens) -> State {
        match byte {
            b'[' => State::Sequence,
            b']' => State::String(true),
            b'P' | b'X' | b'^' | b'_' => State::String(false),
            0x20..0x30 => State::Intermediate,
            _ => {
                self.end(Kind::Plain, to);
                State::Ground
            }
        }
    }

    fn parameters(&mut self, byte: u8, to: &mut impl Tokens) -> State {
        let first_final = if self.state == State::Sequence { 0x40 } else { 0x30 };
        match byte {
            ESCAPE | 0x80.. => {
                self.break_off(Kind::Plain, to);
                self.ground(byte, to)
            }
            CANCEL | SUBSTITUTE => self.push_and_end(byte, Kind::Plain, to),
            DELETE => self.keep(byte, self.state, to),
            byte if byte >= first_final => {
                let window = byte == b't' && self.state == State::Sequence;
                self.push_and_end(byte, if window { Kind::Window } else { Kind::Plain }, to)
            }
            byte => self.keep(byte, self.state, to),
        }
    }

    fn string(&mut self, command: bool, byte: u8, to: &mut impl Tokens) -> State {
        match byte {
            BELL if command => self.push_and_end(byte, Kind::String, to),
            CANCEL | SUBSTITUTE => self.push_and_end(byte, Kind::String, to),
            ESCAPE => self.keep(byte, State::StringEscape(command), to),
            LEAD => self.keep(byte, State::StringLead(command), to),
            byte => self.keep(byte, State::String(command), to),
        }
    }

    fn keep(&mut self, byte: u8, next: State, to: &mut impl Tokens) -> State {
        self.sequence.push(byte);
        if self.sequence.len() < MAX_SEQUENCE_BYTES {
            return next;
        }
        let string = !matches!(next, State::Escape | State::Intermediate | State::Sequence);
        self.break_off(if string { Kind::String } else { Kind::Plain }, to);
        State::Ground
    }

    fn push_and_end(&mut self, byte: u8, kind: Kind, to: &mut impl Tokens) -> State {
        self.sequence.push(byte);
        self.end(kind, to);
        State::Ground
    }

    fn end(&mut self, kind: Kind, to: &mut impl Tokens) {
        self.give(kind, false, to);
    }

    /// Gives out what there is of a sequence that does not end as it should.
    fn break_off(&mut self, kind: Kind, to: &mut impl Tokens) {
        self.give(kind, true, to);
    }

    fn give(&mut self, kind: Kind, unfinished: bool, to: &mut impl Tokens) {
        let bytes = std::mem::take(&mut self.sequence);
        let kind = if kind == Kind::String && is_clipboard(&bytes) { Kind::Clipboard } else { kind };
        let clean = kind == Kind::Plain && is_clean(&bytes);
        to.control(Control { bytes: &bytes, effect: effect(&bytes), kind, clean, unfinished });
    }
}

/// A single control character.
fn single(byte: u8, to: &mut impl Tokens) {
    let effect = match byte {
        b'\r' => Effect::Break,
        BACKSPACE => Effect::Back(1),
        _ => Effect::None,
    };
    let kind = if byte == ENQUIRY { Kind::Window } else { Kind::Plain };
    to.control(Control { bytes: &[byte], effect, kind, clean: true, unfinished: false });
}

/// The sequence without ESC or what stands for it in C1: `[`, `]` and the like first.
fn body(bytes: &[u8]) -> (u8, &[u8]) {
    match bytes {
        [ESCAPE, introducer, rest @ ..] => (*introducer, rest),
        [LEAD, c1, rest @ ..] => (c1.wrapping_sub(0x40), rest),
        _ => (0, &[]),
    }
}

fn is_clipboard(bytes: &[u8]) -> bool {
    let (introducer, rest) = body(bytes);
    // Leading zeros, and control characters that are passed over, change nothing.
    let number = rest.iter().filter(|b| **b >= 0x20).skip_while(|b| **b == b'0').take(3).copied();
    introducer == b']' && number.eq(*b"52;")
}

fn is_clean(bytes: &[u8]) -> bool {
    let digits = bytes.split(|b| !b.is_ascii_digit()).map(<[u8]>::len).max();
    bytes.len() <= MAX_CLEAN_BYTES && digits.is_none_or(|digits| digits <= MAX_CLEAN_DIGITS)
}

/// What a whole sequence does to its line (ECMA-48 section 8.3; xterm control sequences).
fn effect(bytes: &[u8]) -> Effect {
    let (introducer, rest) = body(bytes);
    let Some((last, parameters)) = rest.split_last() else {
        return match introducer {
            // IND, NEL, RI, restore cursor, reset.
            b'D' | b'E' | b'M' | b'8' | b'c' => Effect::Break,
            _ => Effect::None,
        };
    };
    if introducer != b'[' {
        return Effect::None;
    }
    let cells = || cells(parameters);
    match last {
        b'C' | b'a' => Effect::Forward(cells()),
        b'D' | b'j' => Effect::Back(cells()),
        b'b' => Effect::Repeat(cells()),
        b'A' | b'B' | b'E' | b'F' | b'G' | b'H' | b'I' | b'J' | b'Z' | b'`' | b'd' | b'e' | b'f' | b'k'
        | b'u' | b'r' => Effect::Break,
        _ => Effect::None,
    }
}

/// The first parameter; none or 0 means 1.
fn cells(parameters: &[u8]) -> usize {
    let digits =
        parameters.iter().filter(|b| **b >= 0x20 && **b != DELETE).take_while(|b| b.is_ascii_digit());
    let number = digits.fold(0_usize, |n, b| n.saturating_mul(10).saturating_add(usize::from(b - b'0')));
    number.clamp(1, MAX_CELLS)
}

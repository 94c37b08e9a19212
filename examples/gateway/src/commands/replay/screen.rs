//! A recorded terminal on the terminal of whoever looks at it: only what draws passes.
//!
//! What a host printed once could, printed again, set titles, write the clipboard, make the terminal answer as if somebody had
//! typed, or reprogram it (ECMA-48; xterm's `ctlseqs`). So only known drawing sequences pass, and text.

use gateway_core::text::is_deceptive;

/// Longest control sequence that is understood, in characters; a longer one is dropped.
const MAX_SEQUENCE: usize = 64;

/// Private modes that may be set: line wrap, cursor, the alternate screens.
const MODES: [&str; 5] = ["7", "25", "47", "1047", "1049"];

/// Final characters of control sequences that only draw or move the cursor.
const DRAWING: &str = "@ABCDEFGHIJKLMPSTXZ`adefmr";

/// Lets text and drawing through. Sequences may be cut anywhere between pieces.
#[derive(Debug, Default)]
pub(super) struct Screen {
    state: State,
    /// What to undo at the end.
    alternate: bool,
    touched: bool,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Text,
    /// After ESC.
    Escape,
    /// After ESC and `(`.
    Charset,
    /// After ESC and another intermediate character.
    Dropped,
    /// After CSI, with what came of it.
    Control(String),
    /// A string for the terminal itself, up to its end.
    Command,
}

impl Screen {
    /// What of the text may be drawn.
    pub(super) fn draw(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        for c in text.chars() {
            self.step(c, &mut out);
        }
        self.touched |= !out.is_empty();
        out
    }

    /// Puts the terminal back as it was.
    pub(super) fn restore(&mut self) -> &'static str {
        let Self { alternate, touched, .. } = std::mem::take(self);
        match (touched, alternate) {
            (false, _) => "",
            (true, false) => "\x1b[0m\x1b(B\x1b[?7h\x1b[?25h\x1b7\x1b[r\x1b8",
            (true, true) => "\x1b[0m\x1b(B\x1b[?7h\x1b[?25h\x1b7\x1b[r\x1b8\x1b[?1049l",
        }
    }

    fn step(&mut self, c: char, out: &mut String) {
        self.state = match std::mem::take(&mut self.state) {
            State::Text => return self.text(c, out),
            State::Escape => self.escape(c, out),
            State::Charset => {
                if matches!(c, '0' | 'B') {
                    out.extend(['\x1b', '(', c]);
                }
                State::Text
            }
            State::Dropped if matches!(c, ' '..='/') => State::Dropped,
            State::Dropped => State::Text,
            State::Control(sequence) => self.control(sequence, c, out),
            // Ended as ECMA-48 section 8.3.143 says, or as terminals give one up: by CAN, SUB or another escape sequence.
            State::Command => match c {
                '\x07' | '\x18' | '\x1a' | '\u{9c}' => State::Text,
                '\x1b' => State::Escape,
                _ => State::Command,
            },
        };
    }

    fn text(&mut self, c: char, out: &mut String) {
        match c {
            '\x1b' => self.state = State::Escape,
            // The same as ESC and `[`; other C1 controls are dropped.
            '\u{9b}' => self.state = State::Control(String::new()),
            '\u{90}' | '\u{98}' | '\u{9d}'..='\u{9f}' => self.state = State::Command,
            '\n' | '\r' | '\t' | '\x08' => out.push(c),
            c if is_deceptive(c) => {}
            c => out.push(c),
        }
    }

    fn escape(&mut self, c: char, out: &mut String) -> State {
        match c {
            '[' => return State::Control(String::new()),
            ']' | 'P' | 'X' | '^' | '_' => return State::Command,
            '(' => return State::Charset,
            ' '..='/' => return State::Dropped,
            '\x1b' => return State::Escape,
            '7' | '8' | 'D' | 'E' | 'M' => out.extend(['\x1b', c]),
            _ => {}
        }
        State::Text
    }

    fn control(&mut self, mut sequence: String, c: char, out: &mut String) -> State {
        match c {
            '\x1b' => State::Escape,
            ' '..='?' if sequence.len() < MAX_SEQUENCE => {
                sequence.push(c);
                State::Control(sequence)
            }
            '@'..='~' => {
                if self.draws(&sequence, c) {
                    out.extend(["\x1b[", &sequence]);
                    out.push(c);
                }
                State::Text
            }
            ' '..='?' => State::Control(sequence),
            // A broken sequence: nothing of it is drawn.
            _ => State::Text,
        }
    }

    fn draws(&mut self, sequence: &str, last: char) -> bool {
        if sequence.len() >= MAX_SEQUENCE {
            return false;
        }
        if let Some(modes) = sequence.strip_prefix('?') {
            let known = matches!(last, 'h' | 'l') && modes.split(';').all(|mode| MODES.contains(&mode));
            if known && modes.split(';').any(|mode| mode.ends_with("47") || mode == "1049") {
                self.alternate = last == 'h';
            }
            return known;
        }
        DRAWING.contains(last) && sequence.chars().all(|c| matches!(c, '0'..='9' | ';' | ':'))
    }
}

/// One line of a terminal without its control sequences; of what was overwritten by a carriage return, the last.
pub(super) fn plain(line: &str) -> String {
    let mut screen = Screen::default();
    let mut out = String::new();
    let line = line.trim_end_matches('\r');
    for c in line.rsplit('\r').next().unwrap_or(line).chars() {
        let text = matches!(screen.state, State::Text);
        let mut drawn = String::new();
        screen.step(c, &mut drawn);
        if text && matches!(screen.state, State::Text) {
            out.push_str(&drawn);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawing_passes() {
        let drawn = "a\x1b[1;31mb\x1b[0m\r\n\x1b[2J\x1b[H\x1b[?25l\x1b(0q\x1b(B\x1b7\x1b8é\t\x08";
        assert_eq!(Screen::default().draw(drawn), drawn);
    }

    #[test]
    fn everything_else_does_not() {
        for evil in [
            "\x1b]0;title\x07",
            "\x1b]52;c;AAAA\x1b\\",
            "\x1bP$q\"p\x1b\\",
            "\x1b_x\x1b\\",
            "\x1b[6n",
            "\x1b[c",
            "\x1b[>c",
            "\x1b[21t",
            "\x1b[?1000h",
            "\x1b[?25;1000h",
            "\x1b[4h",
            "\x1b[0\"q",
            "\x1bc",
            "\x1b#8",
            "\x1b%G",
            "\u{9d}0;x\x07",
            "\u{9b}6n",
            "\x07\x00\x0e\x0f\u{85}",
            "\u{202e}",
        ] {
            assert_eq!(Screen::default().draw(&format!("a{evil}b")), "ab", "{evil:?}");
        }
        for given_up in
            ["\u{9d}x\u{9c}", "\x1b]x\x18", "\x1bPx\x1a", "\x1b]x\x1b[0m", "\x1b_x\x1b\\", "\u{9d}x\x07"]
        {
            assert!(Screen::default().draw(&format!("a{given_up}b")).ends_with('b'), "{given_up:?}");
        }
        let long = format!("\x1b[{}mb", "1;".repeat(200));
        assert_eq!(Screen::default().draw(&long), "b");
    }

    #[test]
    fn the_terminal_is_put_back() {
        let mut screen = Screen::default();
        assert_eq!(screen.restore(), "");
        screen.draw("\x1b[?1049hx");
        assert!(screen.restore().ends_with("\x1b[?1049l"));
        screen.draw("\x1b[?1049hx\x1b[?1049l");
        assert!(!screen.restore().contains("1049"));
    }

    #[test]
    fn lines_are_plain() {
        assert_eq!(plain("10%\r\x1b[1m20%\x1b[0m\r"), "20%");
        assert_eq!(plain("\x1b]0;t\x07$ ls"), "$ ls");
    }

    proptest::proptest! {
        #[test]
        fn cuts_change_nothing(text: String, cut: proptest::sample::Index) {
            let chars: Vec<char> = text.chars().collect();
            let (a, b) = chars.split_at(cut.index(chars.len() + 1));
            let mut screen = Screen::default();
            let mut got = screen.draw(&a.iter().collect::<String>());
            got.push_str(&screen.draw(&b.iter().collect::<String>()));
            proptest::prop_assert_eq!(got, Screen::default().draw(&text));
        }
    }
}

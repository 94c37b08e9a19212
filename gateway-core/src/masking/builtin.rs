//! The rules that come with the gateway.

use std::ops::Range;

use super::class::DataClass;
use super::tail::Tail;
use super::validate::{self, Candidate, ends_value};

/// The family a built-in rule belongs to: one trigger, one automaton, one left-hand test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// Begins with a digit, `+` or `(`.
    Digits,
    /// Begins with two capitals and two digits.
    Account,
    /// Begins at `@` and reaches back over the name before it.
    Email,
    /// Begins with a hexadecimal group or a colon.
    Address,
    /// Begins with a literal at a word start.
    Tokens,
    /// Begins with a literal anywhere.
    Anywhere,
}

/// In order of precedence: of a secret and a number that begin at one byte, the secret names the span.
pub(super) const FAMILIES: &[Family] =
    &[Family::Tokens, Family::Anywhere, Family::Digits, Family::Account, Family::Email, Family::Address];

pub(super) type Check = fn(&Candidate<'_>) -> Option<Range<usize>>;

/// One built-in rule. The pattern is the bounded head of a value; `tail` takes the rest.
#[derive(Debug)]
pub(super) struct BuiltIn {
    pub(super) class: DataClass,
    pub(super) family: Family,
    pub(super) pattern: &'static str,
    pub(super) check: Check,
    pub(super) tail: Tail,
    /// How many bytes after the head `check` may look at.
    pub(super) lookahead: usize,
}

/// Literals that begin, in lower case, every match of the literal families; three packs of at most 16, as the vector
/// search slows down beyond that.
pub(super) const LITERALS: [&[&str]; 3] = [
    &[
        "akia",
        "asia",
        "abia",
        "acca",
        "xox",
        "xapp-",
        "sk_live_",
        "sk_test_",
        "rk_live_",
        "rk_test_",
        "aiza",
        "gocspx-",
        "sk-",
        "eyj",
        "-----begin",
    ],
    &[
        "ghp_",
        "gho_",
        "ghu_",
        "ghs_",
        "ghr_",
        "github_pat_",
        "glpat-",
        "gldt-",
        "glrt-",
        "glcbt-",
        "glptt-",
        "glft-",
        "glsoat-",
        "bearer",
        "basic",
        "://",
    ],
    &[
        "password",
        "passwd",
        "pwd",
        "passphrase",
        "secret",
        "token",
        "identified",
        "api_key",
        "apikey",
        "api-key",
        "access_key",
        "accesskey",
        "access-key",
        "private_key",
        "accountkey",
        "account_key",
    ],
];

const fn rule(class: DataClass, family: Family, pattern: &'static str, check: Check) -> BuiltIn {
    BuiltIn { class, family, pattern, check, tail: Tail::None, lookahead: 0 }
}

const fn tailed(
    class: DataClass,
    family: Family,
    pattern: &'static str,
    check: Check,
    tail: Tail,
) -> BuiltIn {
    BuiltIn { class, family, pattern, check, tail, lookahead: 0 }
}

fn looking(rule: BuiltIn, lookahead: usize) -> BuiltIn {
    BuiltIn { lookahead, ..rule }
}

fn token_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_' || b == b'-'
}

fn jwt_byte(b: u8) -> bool {
    token_byte(b) || b == b'.' || b == b'='
}

fn bearer_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"._~+/=-".contains(&b)
}

fn value_byte(b: u8) -> bool {
    !ends_value(b)
}

fn alphanumeric(b: u8) -> bool {
    b.is_ascii_alphanumeric()
}

/// Names whose value is a secret; a name may go on before them (`DB_PASSWORD`) but not after.
macro_rules! names {
    () => {
        "(?i:password|passwd|pwd|passphrase|secret(?:[_-]?(?:access)?[_-]?key)?|api[_-]?key|access[_-]?key|private_key|account_?key|token)"
    };
}

/// The bytes of an unquoted value.
macro_rules! plain {
    () => {
        "[^\\s\"'`,;&|)}\\]\\\\<>\\x00]"
    };
}

/// All built-in rules; within a family, of two that begin at one byte the first names the span.
pub(super) fn rules() -> Vec<BuiltIn> {
    use Family::{Account, Address, Anywhere, Digits, Email, Tokens};
    let mut all = vec![
        rule(
            DataClass::PAYMENT_CARD,
            Digits,
            r"\d{4}[ -]?\d{4}[ -]?\d{4}[ -]?\d{4}(?-u:\b)",
            validate::payment_card,
        ),
        rule(
            DataClass::PAYMENT_CARD,
            Digits,
            r"\d{4}[ -]\d{4}[ -]\d{4}[ -]\d{4}[ -]\d{3}(?-u:\b)",
            validate::payment_card,
        ),
        rule(DataClass::PAYMENT_CARD, Digits, r"\d{4}[ -]?\d{6}[ -]?\d{4,5}(?-u:\b)", validate::payment_card),
        rule(DataClass::PAYMENT_CARD, Digits, r"\d{14,19}(?-u:\b)", validate::payment_card),
        rule(DataClass::US_SSN, Digits, r"\d{3}(?:-\d{2}-| \d{2} )\d{4}(?-u:\b)", validate::us_ssn),
        looking(
            rule(
                DataClass::PHONE,
                Digits,
                r"(?:\+1[ .-]?)?(?:\(\d{3}\)[ .-]?|\d{3}[ .-])\d{3}[ .-]\d{4}(?-u:\b)",
                validate::phone_us,
            ),
            2,
        ),
        rule(
            DataClass::PHONE,
            Digits,
            r"\+\d{1,3}(?:[ .-]?\(?\d{1,5}\)?){1,6}(?-u:\b)",
            validate::phone_international,
        ),
        rule(DataClass::PHONE, Digits, r"\+\d{8,15}(?-u:\b)", validate::phone_international),
        looking(
            rule(DataClass::IPV4, Digits, r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}(?-u:\b)", validate::ipv4),
            2,
        ),
        looking(
            rule(
                DataClass::IBAN,
                Account,
                r"[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]{4}){2,7}(?:[ -]?[A-Z0-9]{1,3})?",
                validate::iban,
            ),
            1,
        ),
        rule(
            DataClass::EMAIL,
            Email,
            r"@(?:[A-Za-z0-9\x80-\xFF](?:[A-Za-z0-9\x80-\xFF-]{0,62})\.){1,6}[A-Za-z\x80-\xFF][A-Za-z0-9\x80-\xFF-]{1,23}",
            validate::email,
        ),
        looking(
            rule(
                DataClass::IPV6,
                Address,
                r"(?:[0-9A-Fa-f]{0,4}:){2,7}(?:[0-9A-Fa-f]{0,4}|\d{1,3}(?:\.\d{1,3}){3})",
                validate::ipv6,
            ),
            1,
        ),
        rule(
            DataClass::AWS_KEY,
            Tokens,
            r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}(?-u:\b)",
            validate::random_token,
        ),
        tailed(
            DataClass::GITHUB_TOKEN,
            Anywhere,
            r"gh[pousr]_[A-Za-z0-9]{36}",
            validate::github_token,
            Tail::While(jwt_byte),
        ),
        tailed(
            DataClass::GITHUB_TOKEN,
            Anywhere,
            r"github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{20}",
            validate::random_token,
            Tail::While(token_byte),
        ),
        tailed(
            DataClass::GITLAB_TOKEN,
            Anywhere,
            r"gl(?:pat|dt|rt|cbt|ptt|ft|soat)-[A-Za-z0-9_-]{20}",
            validate::random_token,
            Tail::While(jwt_byte),
        ),
        tailed(
            DataClass::SLACK_TOKEN,
            Tokens,
            r"(?:xox[abceoprs](?:\.xox[abp])?|xapp)-[A-Za-z0-9-]{10}",
            validate::random_token,
            Tail::While(token_byte),
        ),
        tailed(
            DataClass::STRIPE_KEY,
            Tokens,
            r"[sr]k_(?:live|test)_[A-Za-z0-9]{16}",
            validate::random_token,
            Tail::While(alphanumeric),
        ),
        tailed(
            DataClass::GOOGLE_KEY,
            Tokens,
            r"AIza[A-Za-z0-9_-]{35}",
            validate::random_token,
            Tail::While(token_byte),
        ),
        tailed(
            DataClass::GOOGLE_KEY,
            Tokens,
            r"GOCSPX-[A-Za-z0-9_-]{20}",
            validate::random_token,
            Tail::While(token_byte),
        ),
        tailed(
            DataClass::ANTHROPIC_KEY,
            Tokens,
            r"sk-ant-[A-Za-z0-9]{2,10}-[A-Za-z0-9_-]{20}",
            validate::random_token,
            Tail::While(token_byte),
        ),
        tailed(
            DataClass::OPENAI_KEY,
            Tokens,
            r"sk-(?:proj|svcacct|admin|None)-[A-Za-z0-9_-]{20}",
            validate::random_token,
            Tail::While(token_byte),
        ),
        tailed(
            DataClass::OPENAI_KEY,
            Tokens,
            r"sk-[A-Za-z0-9]{32}",
            validate::random_token,
            Tail::While(token_byte),
        ),
        tailed(DataClass::JWT, Tokens, r"eyJ[A-Za-z0-9_-]{10,440}\.", validate::jwt, Tail::While(jwt_byte)),
        tailed(DataClass::JWT, Tokens, r"eyJ[A-Za-z0-9_-]{441}", validate::jwt, Tail::While(jwt_byte)),
        tailed(
            DataClass::PRIVATE_KEY,
            Anywhere,
            r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----",
            whole,
            Tail::Pem,
        ),
        looking(
            rule(
                DataClass::URL_PASSWORD,
                Anywhere,
                r#"://[^\s/:@"'`<>\x00]{0,64}:[^\s/"'`<>\x00]{1,200}@"#,
                validate::url_password,
            ),
            0,
        ),
    ];
    all.extend(assignments());
    all
}

fn whole(c: &Candidate<'_>) -> Option<Range<usize>> {
    Some(c.range.clone())
}

/// How far the check of an assigned value looks past its first bytes: a whole tag, an unset value's name.
const VALUE_LOOKAHEAD: usize = super::transform::TAG_LOOKAHEAD;

fn assignments() -> Vec<BuiltIn> {
    let secret = |pattern, check: Check, tail| {
        looking(
            tailed(DataClass::PASSWORD_ASSIGNMENT, Family::Anywhere, pattern, check, tail),
            VALUE_LOOKAHEAD,
        )
    };
    let value: fn(u8) -> bool = value_byte;
    let mut all = vec![
        // JSON, YAML, code: the value is quoted.
        secret(
            concat!(names!(), r#"["']?[ \t]{0,8}(?:=>|:=|[:=])[ \t]{0,8}"[^"\n\x00]"#),
            validate::assigned::<1>,
            Tail::Quoted(b'"'),
        ),
        secret(
            concat!(names!(), r#"["']?[ \t]{0,8}(?:=>|:=|[:=])[ \t]{0,8}'[^'\n\x00]"#),
            validate::assigned::<1>,
            Tail::Quoted(b'\''),
        ),
        // JSON inside JSON.
        secret(
            concat!(names!(), r#"(?:\\{1,3}["'])?[ \t]{0,8}[:=][ \t]{0,8}\\{1,3}["'][^\s"'\\\x00]"#),
            validate::assigned::<1>,
            Tail::While(value),
        ),
        // Environment, properties, query strings, YAML.
        secret(
            concat!(names!(), r#"["']?[ \t]{0,8}[:=][ \t]{0,8}"#, plain!(), "{4}"),
            validate::assigned::<4>,
            Tail::While(value),
        ),
        // Command lines and SQL.
        secret(
            concat!(names!(), r#"[ \t]{1,4}"#, plain!(), "{4}"),
            validate::option_value,
            Tail::While(value),
        ),
        secret(
            r"(?i:password|identified[ \t]{1,4}by)[ \t]{1,4}'[^'\n\x00]",
            validate::assigned::<1>,
            Tail::Quoted(b'\''),
        ),
    ];
    all.push(looking(
        tailed(
            DataClass::BEARER,
            Family::Anywhere,
            r"(?i:bearer)[ \t]{1,4}[A-Za-z0-9._~+/=-]{16}",
            validate::assigned::<16>,
            Tail::While(bearer_byte),
        ),
        VALUE_LOOKAHEAD,
    ));
    all.push(looking(
        tailed(
            DataClass::BEARER,
            Family::Anywhere,
            r"(?i:basic)[ \t]{1,4}[A-Za-z0-9+/=]{12}",
            validate::basic_credential,
            Tail::While(bearer_byte),
        ),
        VALUE_LOOKAHEAD,
    ));
    all
}

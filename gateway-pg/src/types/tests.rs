use std::sync::Arc;

use proptest::prelude::*;

use super::*;

/// Masks every text that holds `secret`, and every labelled value.
struct Tester;

impl Masking for Tester {
    fn text(&mut self, text: &[u8]) -> Option<Vec<u8>> {
        let text = std::str::from_utf8(text).ok()?;
        text.contains("secret").then(|| text.replace("secret", "[X]").into_bytes())
    }

    fn field(&mut self, _: &[u8]) -> Option<Vec<u8>> {
        Some(b"[MASKED]".to_vec())
    }

    fn fixed(&mut self) -> bool {
        true
    }
}

fn scanned(oid: u32, text: &str) -> Option<String> {
    let masked = scan(&mut Tester, &builtin(oid), Format::Text, text.as_bytes())?;
    Some(masked.map_or_else(|| "NULL".to_owned(), |bytes| String::from_utf8(bytes).unwrap()))
}

fn labelled(oid: u32, text: &str) -> String {
    let masked = label(&mut Tester, &builtin(oid), Format::Text, text.as_bytes());
    masked.map_or_else(|| "NULL".to_owned(), |bytes| String::from_utf8(bytes).unwrap())
}

#[test]
fn content_is_found_in_the_parts_of_a_value() {
    assert_eq!(scanned(1009, "{a,b}"), None);
    assert_eq!(scanned(1009, r#"{a,"the secret",NULL,"x\"y"}"#).unwrap(), r#"{"a","the [X]",NULL,"x\"y"}"#);
    assert_eq!(scanned(1009, "[2:3]={secret,b}").unwrap(), r#"[2:3]={"[X]","b"}"#);
    assert_eq!(scanned(1009, "{{secret,NULL},{b,c}}").unwrap(), r#"{{"[X]",NULL},{"b","c"}}"#);
    assert_eq!(scanned(2249, r#"(1,"a ""secret""",)"#).unwrap(), r#"("1","a \"[X]\"",)"#);
    assert_eq!(scanned(17, r"\x736563726574").unwrap(), r"\x5b585d");
    assert_eq!(scanned(1001, r#"{"\\x736563726574"}"#).unwrap(), r#"{"\\x5b585d"}"#);
    assert_eq!(scanned(114, r#"{"a": "\u0073ecret", "secret": 1}"#).unwrap(), r#"{"a": "[X]", "[X]": 1}"#);
    assert_eq!(scanned(3802, r#"{"a": ["secret", 1.50]}"#).unwrap(), r#"{"a": ["[X]", 1.50]}"#);
    assert_eq!(scanned(1007, "{1,2}"), None);
    assert_eq!(scanned(1041, "{secret,10.1.2.3}").unwrap(), r#"{"0.0.0.0","10.1.2.3"}"#);
    assert_eq!(scanned(2249, r#"("\\x736563726574")"#).unwrap(), r#"("\\x5b585d")"#);
    let rows = r#"{"(\"\\\\x736563726574\",\\\\x00)"}"#;
    let unknown = |value: &str| scan(&mut Tester, &Kind::Unknown, Format::Text, value.as_bytes());
    assert_eq!(unknown(rows), Some(Some(rows.replace("736563726574", "5b585d").into_bytes())));
    assert_eq!(unknown(r"secret \x7365637265740"), Some(Some(br"[X] \x5b585d0".to_vec())));
    assert_eq!(unknown(r#"{"a": "\u0073ecret"}"#), Some(None));
    assert_eq!(unknown(r#"{"{\"a\": \"\\u0073ecre\\u0074\"}"}"#), Some(None));
    let others = r#"["secret", "\u00e9\ud83d\ude00\/", "\u12"]"#;
    assert_eq!(unknown(others), Some(Some(others.replace("secret", "[X]").into_bytes())));
    assert_eq!(unknown(r"{\x00,\x,\xyz,\x4}"), None);
    assert_eq!(scanned(4096, "secret").unwrap(), "-");
    assert_eq!(scanned(701, "secret").unwrap(), "0");
}

#[test]
fn what_cannot_be_taken_apart_is_not_shown_if_anything_is_in_it() {
    assert_eq!(scanned(1009, "{secret").unwrap(), "NULL");
    assert_eq!(scanned(1009, "{a},secret").unwrap(), "NULL");
    assert_eq!(scanned(2249, "(secret").unwrap(), "NULL");
    assert_eq!(labelled(1009, "{a"), "NULL");
    assert_eq!(labelled(600, "(1,2)"), "NULL");
}

#[test]
fn labelled_values_are_replaced_by_values_of_their_type() {
    for (oid, value, expected) in [
        (23, "42", "0"),
        (16, "t", "f"),
        (17, r"\x00", r"\x5b4d41534b45445d"),
        (1007, "{{1,NULL},{3,4}}", r#"{{"0",NULL},{"0","0"}}"#),
        (1182, "{1999-01-01}", r#"{"2000-01-01"}"#),
        (1009, "{}", "{}"),
        (3904, "[1,5)", "empty"),
        (3905, r#"{"[1,5)"}"#, r#"{"empty"}"#),
        (4451, "{[1,5)}", "{}"),
        (1560, "1011", "0000"),
        (18, "x", "["),
        (114, r#"{"a": 1}"#, r#""[MASKED]""#),
        (2249, "(1,b)", r#"("[MASKED]","[MASKED]")"#),
    ] {
        assert_eq!(labelled(oid, value), expected, "{oid}");
    }
}

/// A kind whose values any text can be parts of.
fn kinds() -> impl Strategy<Value = Arc<Kind>> {
    let leaf = prop_oneof![Just(Arc::new(Kind::Text)), Just(Arc::new(Kind::Name))];
    leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|kind| Arc::new(Kind::Array(Some(kind)))),
            prop::collection::vec(inner.clone(), 1..4).prop_map(|k| Arc::new(Kind::Composite(k.into()))),
            inner.prop_map(|kind| Arc::new(Kind::Range(kind))),
        ]
    })
}

/// A value of a kind in a format, made of these texts.
fn made(kind: &Kind, format: Format, texts: &mut dyn Iterator<Item = String>) -> Vec<u8> {
    let mut part = |kind: &Arc<Kind>, frame| Part::Value {
        kind: Arc::clone(kind),
        value: made(kind, format, texts),
        frame,
    };
    let parts = match (kind, format) {
        (Kind::Array(Some(e)), Format::Text) => {
            vec![fixed(b"{"), part(e, Frame::Element), fixed(b",NULL,"), part(e, Frame::Element), fixed(b"}")]
        }
        (Kind::Array(Some(e)), Format::Binary) => {
            let header: Vec<u8> = [1i32, 0, 25, 2, 1].iter().flat_map(|n| n.to_be_bytes()).collect();
            vec![fixed(&header), part(e, Frame::Length), part(e, Frame::Length)]
        }
        (Kind::Composite(fields), _) => {
            let binary = format == Format::Binary;
            let mut parts =
                vec![if binary { fixed(&(fields.len() as i32).to_be_bytes()) } else { fixed(b"(") }];
            for (i, field) in fields.iter().enumerate() {
                match binary {
                    true => parts.extend([fixed(&25u32.to_be_bytes()), part(field, Frame::Length)]),
                    false if i > 0 => parts.extend([fixed(b","), part(field, Frame::Field)]),
                    false => parts.push(part(field, Frame::Field)),
                }
            }
            parts.extend((!binary).then(|| fixed(b")")));
            parts
        }
        (Kind::Range(bound), Format::Text) => {
            vec![fixed(b"["), part(bound, Frame::Bound), fixed(b","), part(bound, Frame::Bound), fixed(b")")]
        }
        (Kind::Range(bound), Format::Binary) => {
            vec![fixed(&[2]), part(bound, Frame::Length), part(bound, Frame::Length)]
        }
        _ => return texts.next().unwrap_or_default().into_bytes(),
    };
    write(&parts)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn every_part_is_met_once_in_order_and_replaced_in_place(
        kind in kinds(),
        texts in prop::collection::vec("[a-z \"\\\\{}(),\\[\\]é]{0,5}", 24..=24),
        binary in any::<bool>(),
    ) {
        let format = if binary { Format::Binary } else { Format::Text };
        let value = made(&kind, format, &mut texts.clone().into_iter());
        let mut met = Vec::new();
        let same = kind.map(format, &value, Parts::All, &mut |_, _, part| { met.push(part.to_vec()); None });
        prop_assert_eq!(same, Ok(None));
        let expected: Vec<_> = texts.iter().take(met.len()).map(|t| t.clone().into_bytes()).collect();
        prop_assert_eq!(&met, &expected);
        let masked = kind.map(format, &value, Parts::All, &mut |_, _, part| Some(Some([b"x", part].concat())));
        let Ok(Some(Some(masked))) = masked else { return Err(TestCaseError::fail("not masked")) };
        let mut again = Vec::new();
        let _ = kind.map(format, &masked, Parts::All, &mut |_, _, part| { again.push(part.to_vec()); None });
        let expected: Vec<_> = met.iter().map(|t| [b"x", t.as_slice()].concat()).collect();
        prop_assert_eq!(again, expected);
    }

    #[test]
    fn any_bytes_are_read_or_refused(oid in 0u32..6200, bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        for format in [Format::Text, Format::Binary] {
            let _ = scan(&mut Tester, &builtin(oid), format, &bytes);
            let masked = label(&mut Tester, &builtin(oid), format, &bytes);
            prop_assert!(bytes.is_empty() || masked.as_deref() != Some(&bytes[..]) || bytes.len() < 24, "{masked:?}");
        }
    }
}

#[test]
fn binary_numerics_read_as_decimal() {
    let numeric = |weight: i16, digits: &[u16]| {
        let mut value = (digits.len() as u16).to_be_bytes().to_vec();
        value.extend_from_slice(&weight.to_be_bytes());
        value.extend_from_slice(&[0; 4]);
        digits.iter().for_each(|d| value.extend_from_slice(&d.to_be_bytes()));
        value
    };
    let digits = |value: &[u8]| leaf::numeric_digits(value);
    assert_eq!(digits(&numeric(3, &[4111, 1111, 1111, 1111])).unwrap(), "4111111111111111");
    assert_eq!(digits(&numeric(0, &[12, 5000])).unwrap(), "12.5000");
    assert_eq!(digits(&numeric(1, &[7])).unwrap(), "70000");
    assert_eq!(digits(b"\0\x01\0\0"), None);
}

//! x
use gateway_core::masking::*;
#[test]
fn smoke() {
    let s = Scanner::new(RuleSet::builtin()).unwrap();
    let arc = std::sync::Arc::new(Scanner::new(RuleSet::builtin()).unwrap());
    for t in [
        "mail bob@example.com and 4111-1111-1111-1111 x",
        "password=hunter22 ok",
        "{\"db_password\": \"a\\\"b c\", \"x\": 1}",
        "postgres://u:p@ss@host/db",
        "ip 10.1.2.3 v1.2.3.4 fe80::1 2001:db8:85a3:0:0:8a2e:370:7334 10:11:12",
        "ssn 536-22-8726, (415) 555-0132 +44 20 7946 0958",
        "-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY----- after",
        "Authorization: Bearer abcdefghijklmnop.qrst",
        "iban GB82 WEST 1234 5698 7654 32 and",
        "--password secretvalue x",
    ] {
        let mut o = Vec::new();
        s.mask_into(t.as_bytes(), &ClassSet::default(), &mut o);
        println!("{t:?}\n  {}", String::from_utf8_lossy(&o));
        let mut m = StreamMasker::new(arc.clone(), ClassSet::default());
        let mut p = Vec::new();
        for b in t.bytes() {
            m.push(&[b], &mut p);
        }
        m.finish(&mut p);
        println!("  {}", String::from_utf8_lossy(&p));
    }
}

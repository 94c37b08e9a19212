//! The parser's grammar is that of one version of PostgreSQL; where the server has another one, no word may mean something else.

use std::collections::BTreeMap;

use gateway_pg::analysis::{AnalysisError, LexSettings, Limits, analyse};
use pg_query::protobuf::{KeywordKind, Token};

use crate::support::server;

/// The class of each keyword of the grammar, as `pg_get_keywords` has it.
fn of_the_grammar() -> BTreeMap<String, char> {
    let words = (0..2000).filter_map(|number| Token::try_from(number).ok());
    let words = words.map(|token| token.as_str_name().trim_end_matches("_P").to_lowercase());
    let class = |word: String| {
        let scanned = pg_query::scan(&word).ok()?;
        let [token] = scanned.tokens.as_slice() else { return None };
        let class = match token.keyword_kind() {
            KeywordKind::NoKeyword => return None,
            KeywordKind::UnreservedKeyword => 'U',
            KeywordKind::ColNameKeyword => 'C',
            KeywordKind::TypeFuncNameKeyword => 'T',
            KeywordKind::ReservedKeyword => 'R',
        };
        Some((word, class))
    };
    words.filter_map(class).collect()
}

fn of_the_server() -> BTreeMap<String, char> {
    let rows =
        server().psql("postgres", "SELECT word || ' ' || catcode::text FROM pg_get_keywords()").unwrap();
    let pair = |row: &str| row.split_once(' ').map(|(word, class)| (word.to_owned(), class.chars().next()));
    rows.lines().filter_map(pair).map(|(word, class)| (word, class.unwrap())).collect()
}

fn is_refused(sql: &str, settings: &LexSettings) -> bool {
    let analysed = analyse(sql, settings, &Limits::default());
    matches!(analysed, Err(AnalysisError::VersionDependent { .. } | AnalysisError::Syntax { .. }))
}

/// A word that is a name on one side may be nothing else on the other: unreserved words are names, those of the classes T and R can be
/// told from columns and tables, those of C and R from functions.
#[test]
fn words_of_one_side_only_are_refused() {
    let version = server().psql("postgres", "SHOW server_version_num").unwrap();
    let settings = LexSettings { server_version_num: version.parse().unwrap(), ..LexSettings::default() };
    let (grammar, there) = (of_the_grammar(), of_the_server());
    assert!(grammar.len() > 450 && there.len() > 400, "{} and {}", grammar.len(), there.len());
    let as_name = |class: char| if class == ' ' { 'U' } else { class };
    for word in grammar.keys().chain(there.keys()) {
        let class = |of: &BTreeMap<String, char>| as_name(of.get(word).copied().unwrap_or(' '));
        let (here, there) = (class(&grammar), class(&there));
        if here == there {
            continue;
        }
        if "TR".contains(here) || "TR".contains(there) {
            assert!(
                is_refused(&format!("SELECT {word} FROM t"), &settings),
                "{word}: {here} here, {there} there"
            );
        }
        assert!(is_refused(&format!("SELECT {word}('x')"), &settings), "{word}: {here} here, {there} there");
        assert!(is_refused(&format!("SELECT {word}()"), &settings), "{word}: {here} here, {there} there");
    }
}

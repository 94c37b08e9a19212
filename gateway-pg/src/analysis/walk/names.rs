//! Small readers of the tree: names, constants, options.

use pg_query::NodeEnum;
use pg_query::protobuf::{
    AConst, Alias, DefElem, Node, RangeVar, RoleSpec, RoleSpecType, TypeName, a_const::Val,
};

use super::super::variants::number_read;
use super::{Walk, Walker};

/// `None` for the empty string, which the tree uses for absent names.
pub(super) fn filled(name: &str) -> Option<String> {
    (!name.is_empty()).then(|| name.to_owned())
}

/// Appends what is not there yet.
pub(super) fn extend_new<T: PartialEq + Clone>(into: &mut Vec<T>, from: &[T]) {
    for item in from {
        if !into.contains(item) {
            into.push(item.clone());
        }
    }
}

/// The parts of a relation's name as written.
pub(super) fn range_parts(range: &RangeVar) -> Vec<String> {
    [&range.catalogname, &range.schemaname, &range.relname]
        .into_iter()
        .filter(|part| !part.is_empty())
        .cloned()
        .collect()
}

/// The name and columns of an alias.
pub(super) fn alias_parts(alias: Option<&Alias>) -> (Option<String>, Vec<String>) {
    let Some(alias) = alias else { return (None, Vec::new()) };
    (filled(&alias.aliasname), alias.colnames.iter().filter_map(string).map(str::to_owned).collect())
}

/// A plain string node.
pub(super) fn string(node: &Node) -> Option<&str> {
    match node.node.as_ref()? {
        NodeEnum::String(string) => Some(&string.sval),
        _ => None,
    }
}

/// A constant as text; `None` for NULL and for what is no constant. Looks through the casts that keep the text:
/// `'roles'::varchar(4)` is another text than it seems.
pub(super) fn constant(node: &Node) -> Option<String> {
    match node.node.as_ref()? {
        NodeEnum::AConst(constant) => constant_text(constant),
        NodeEnum::TypeCast(cast) if keeps_text(cast.type_name.as_ref()?) => constant(cast.arg.as_deref()?),
        _ => None,
    }
}

fn keeps_text(name: &TypeName) -> bool {
    let builtin = match name.names.as_slice() {
        [name] => string(name),
        [schema, name] if string(schema) == Some("pg_catalog") => string(name),
        _ => None,
    };
    name.typmods.is_empty()
        && name.array_bounds.is_empty()
        && matches!(builtin, Some("text" | "varchar" | "bool"))
}

/// A constant's text.
pub(super) fn constant_text(constant: &AConst) -> Option<String> {
    if matches!(constant.val, Some(Val::Ival(_) | Val::Fval(_))) {
        number_read();
    }
    match constant.val.as_ref()? {
        Val::Ival(integer) => Some(integer.ival.to_string()),
        Val::Fval(float) => Some(float.fval.clone()),
        Val::Boolval(boolean) => Some(boolean.boolval.to_string()),
        Val::Sval(string) => Some(string.sval.clone()),
        Val::Bsval(bits) => Some(bits.bsval.clone()),
    }
}

/// A constant count of rows.
pub(super) fn count(node: &Node) -> Option<u64> {
    number_read();
    match node.node.as_ref()? {
        NodeEnum::AConst(constant) => match constant.val.as_ref()? {
            Val::Ival(integer) => u64::try_from(integer.ival).ok(),
            Val::Fval(float) => float.fval.parse().ok(),
            _ => None,
        },
        _ => None,
    }
}

/// An option's value as text: `true` when bare, lists joined by `, `, empty for what has no short text.
pub(super) fn option_text(option: &DefElem) -> String {
    option.arg.as_deref().map_or_else(|| "true".to_owned(), value_text)
}

fn value_text(node: &Node) -> String {
    if matches!(node.node, Some(NodeEnum::Integer(_) | NodeEnum::Float(_))) {
        number_read();
    }
    match node.node.as_ref() {
        Some(NodeEnum::String(string)) => string.sval.clone(),
        Some(NodeEnum::Integer(integer)) => integer.ival.to_string(),
        Some(NodeEnum::Float(float)) => float.fval.clone(),
        Some(NodeEnum::Boolean(boolean)) => boolean.boolval.to_string(),
        Some(NodeEnum::AStar(_)) => "*".to_owned(),
        Some(NodeEnum::List(list)) => list.items.iter().map(value_text).collect::<Vec<_>>().join(", "),
        Some(NodeEnum::TypeName(name)) => name.names.iter().filter_map(string).collect::<Vec<_>>().join("."),
        Some(NodeEnum::AConst(constant)) => constant_text(constant).unwrap_or_default(),
        _ => String::new(),
    }
}

/// An option as the server reads booleans; `None` when it would complain.
pub(super) fn option_bool(option: &DefElem) -> Option<bool> {
    match option_text(option).to_ascii_lowercase().as_str() {
        "true" | "on" | "1" => Some(true),
        "false" | "off" | "0" => Some(false),
        _ => None,
    }
}

/// The option elements of a list.
pub(super) fn options(nodes: &[Node]) -> impl Iterator<Item = &DefElem> {
    nodes.iter().filter_map(|node| match node.node.as_ref() {
        Some(NodeEnum::DefElem(option)) => Some(&**option),
        _ => None,
    })
}

/// A role's name as written.
pub(super) fn role_text(role: &RoleSpec) -> String {
    match role.roletype() {
        RoleSpecType::RolespecCstring => role.rolename.clone(),
        RoleSpecType::RolespecCurrentRole => "current_role".to_owned(),
        RoleSpecType::RolespecCurrentUser => "current_user".to_owned(),
        RoleSpecType::RolespecSessionUser => "session_user".to_owned(),
        RoleSpecType::RolespecPublic | RoleSpecType::Undefined => "public".to_owned(),
    }
}

impl Walker {
    /// The parts of a name list; anything but strings in it is refused.
    pub(super) fn strings(&self, nodes: &[Node]) -> Walk<Vec<String>> {
        let parts: Option<Vec<String>> = nodes.iter().map(|node| string(node).map(str::to_owned)).collect();
        parts.map_or_else(|| self.not_understood("a name"), Ok)
    }

    /// The parts of an object's name in the forms the grammar uses for it.
    pub(super) fn object_name(&mut self, node: &Node) -> Walk<Vec<String>> {
        match node.node.as_ref() {
            Some(NodeEnum::String(string)) => Ok(vec![string.sval.clone()]),
            Some(NodeEnum::List(list)) => {
                let mut parts = Vec::new();
                for item in &list.items {
                    parts.extend(self.object_name(item)?);
                }
                Ok(parts)
            }
            Some(NodeEnum::TypeName(name)) => {
                self.node(node)?;
                self.strings(&name.names)
            }
            Some(NodeEnum::ObjectWithArgs(object)) => self.strings(&object.objname),
            Some(NodeEnum::RangeVar(range)) => Ok(range_parts(range)),
            Some(NodeEnum::RoleSpec(role)) => {
                self.role_named(&role_text(role));
                Ok(vec![role_text(role)])
            }
            Some(NodeEnum::Integer(_) | NodeEnum::Float(_)) => Ok(vec![value_text(node)]),
            Some(NodeEnum::AccessPriv(privilege)) => Ok(vec![privilege.priv_name.clone()]),
            _ => self.not_understood("an object's name"),
        }
    }

    pub(super) fn role(&mut self, role: Option<&RoleSpec>) {
        if let Some(role) = role {
            self.role_named(&role_text(role));
        }
    }

    pub(super) fn type_name(&mut self, name: Option<&TypeName>) -> Walk {
        let Some(name) = name else { return Ok(()) };
        self.each(&name.typmods)?;
        self.each(&name.array_bounds)?;
        let parts = self.strings(&name.names)?;
        if matches!(parts.as_slice(), [schema, name] if schema == "pg_catalog" && name == "json") {
            // Before version 17 `json` is no keyword, and what it means is looked up on the search path.
            extend_new(&mut self.found.server_types, &["json".to_owned()]);
        }
        // `t.c%TYPE` names a column's type: the last part is the column.
        let parts =
            if name.pct_type { parts.split_last().map_or(&parts[..], |(_, rest)| rest) } else { &parts[..] };
        if parts.is_empty() { Ok(()) } else { self.type_named(parts) }
    }
}

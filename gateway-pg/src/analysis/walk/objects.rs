//! Definitions of everything that is no relation: schemas, functions, types, operators, extensions, foreign data,
//! replication; and `DROP`, `RENAME`, `COMMENT` for all objects.

use pg_query::NodeEnum;
use pg_query::protobuf::{
    AlterDomainStmt, AlterExtensionContentsStmt, AlterFunctionStmt, AlterObjectDependsStmt,
    AlterObjectSchemaStmt, AlterOperatorStmt, AlterOwnerStmt, AlterPublicationStmt, AlterSubscriptionStmt,
    AlterTypeStmt, AlterUserMappingStmt, CompositeTypeStmt, CreateAmStmt, CreateCastStmt,
    CreateConversionStmt, CreateDomainStmt, CreateEventTrigStmt, CreateExtensionStmt, CreateFunctionStmt,
    CreateOpClassItem, CreateOpClassStmt, CreatePLangStmt, CreatePublicationStmt, CreateRangeStmt,
    CreateSchemaStmt, CreateSubscriptionStmt, CreateTableSpaceStmt, CreateTransformStmt,
    CreateUserMappingStmt, DefElem, DefineStmt, DropStmt, DropUserMappingStmt, FunctionParameter,
    ImportForeignSchemaStmt, Node, ObjectType, ObjectWithArgs, PublicationObjSpec, PublicationTable,
    RangeVar, RenameStmt,
};

use super::super::model::{Access, Change, Code, FunctionRole, ObjectChange, SettingScope};
use super::{Walk, Walker, kind, names};

/// What CREATE SCHEMA makes is made in that schema (PostgreSQL source, `transformCreateSchemaStmtElements`). `None` if that has no name here.
fn made_in(element: &Node, schema: &str) -> Option<Node> {
    let mut element = element.clone();
    let range = match element.node.as_mut() {
        Some(NodeEnum::CreateStmt(create)) => create.relation.as_mut(),
        Some(NodeEnum::ViewStmt(view)) => view.view.as_mut(),
        Some(NodeEnum::IndexStmt(index)) => index.relation.as_mut(),
        Some(NodeEnum::CreateSeqStmt(sequence)) => sequence.sequence.as_mut(),
        Some(NodeEnum::CreateTrigStmt(trigger)) => trigger.relation.as_mut(),
        _ => None,
    };
    if let Some(range) = range.filter(|range| range.schemaname.is_empty()) {
        if schema.is_empty() {
            return None;
        }
        schema.clone_into(&mut range.schemaname);
    }
    Some(element)
}

impl Walker {
    pub(super) fn create_one(&mut self, kind: &'static str, name: &str, options: &[Node]) -> Walk {
        self.object(kind, vec![name.to_owned()], Change::Create);
        self.each(options)
    }

    pub(super) fn alter_one(&mut self, kind: &'static str, name: &str, options: &[Node]) -> Walk {
        self.object(kind, vec![name.to_owned()], Change::Alter);
        self.each(options)
    }

    pub(super) fn drop_one(&mut self, kind: &'static str, name: &str, conditional: bool) {
        self.object(kind, vec![name.to_owned()], Change::Drop).conditional = conditional;
    }

    pub(super) fn create_named(&mut self, kind: &'static str, name: &[Node], options: &[Node]) -> Walk {
        let name = self.strings(name)?;
        self.object(kind, name, Change::Create);
        self.each(options)
    }

    pub(super) fn alter_named(&mut self, kind: &'static str, name: &[Node], options: &[Node]) -> Walk {
        let name = self.strings(name)?;
        self.object(kind, name, Change::Alter);
        self.each(options)
    }

    /// An option of a definition. Its value may be a list, a type's name, a setting or a whole statement.
    pub(super) fn option(&mut self, option: &DefElem) -> Walk {
        let name = option.defname.to_ascii_lowercase();
        if is_secret_option(&name) && option.arg.is_some() {
            self.found.flags.password = true;
        }
        match option.arg.as_deref().and_then(|value| value.node.as_ref()) {
            Some(NodeEnum::VariableSetStmt(set)) => self.set(set, SettingScope::Function),
            // Names of functions and operators are types or lists to the grammar; `define` looks at them.
            Some(NodeEnum::TypeName(_)) if name != "as" => Ok(()),
            // The owner of a sequence: `OWNED BY table.column`.
            Some(NodeEnum::List(list)) if name == "owned_by" => self.owned_by(&list.items),
            Some(NodeEnum::RangeVar(range)) => {
                self.relation(range, Access::Reference);
                Ok(())
            }
            Some(_) => self.maybe(option.arg.as_deref()),
            None => Ok(()),
        }
    }

    fn owned_by(&mut self, name: &[Node]) -> Walk {
        let parts = self.strings(name)?;
        match parts.split_last() {
            Some((_, table)) if !table.is_empty() => {
                self.relation_parts(table, Access::Reference).map(|_| ())
            }
            _ => Ok(()),
        }
    }

    pub(super) fn create_schema(&mut self, schema: &CreateSchemaStmt) -> Walk {
        self.role(schema.authrole.as_ref());
        let name = names::filled(&schema.schemaname).into_iter().collect();
        self.object("schema", name, Change::Create).conditional = schema.if_not_exists;
        let role = schema.authrole.as_ref().map_or("", |role| role.rolename.as_str());
        let name = Some(schema.schemaname.as_str()).filter(|name| !name.is_empty()).unwrap_or(role);
        for element in &schema.schema_elts {
            match made_in(element, name) {
                Some(element) => {
                    self.nested(&element)?;
                }
                None => {
                    return self
                        .not_understood("an object in a schema that is called after whoever makes it");
                }
            }
        }
        self.found.outputs.clear();
        Ok(())
    }

    pub(super) fn create_function(&mut self, function: &CreateFunctionStmt) -> Walk {
        let name = self.strings(&function.funcname)?;
        let change = if function.replace { Change::Replace } else { Change::Create };
        self.object(if function.is_procedure { "procedure" } else { "function" }, name, change);
        self.each(&function.parameters)?;
        self.type_name(function.return_type.as_ref())?;
        let code = self.function_options(&function.options)?;
        self.found.code = Some(code);
        self.maybe(function.sql_body.as_deref())?;
        self.found.outputs.clear();
        Ok(())
    }

    fn function_options(&mut self, options: &[Node]) -> Walk<Code> {
        let mut code = Code::default();
        for option in names::options(options) {
            match option.defname.as_str() {
                "language" => code.language = Some(names::option_text(option).to_ascii_lowercase()),
                "security" => code.security_definer = names::option_bool(option).unwrap_or(true),
                "as" => code.bytes += names::option_text(option).len(),
                "support" => self.support(option)?,
                _ => self.option(option)?,
            }
        }
        Ok(code)
    }

    fn support(&mut self, option: &DefElem) -> Walk {
        match option.arg.as_deref().and_then(|value| value.node.as_ref()) {
            Some(NodeEnum::List(name)) => self.implementation(&name.items),
            _ => self.not_understood("a support function"),
        }
    }

    pub(super) fn function_parameter(&mut self, parameter: &FunctionParameter) -> Walk {
        self.type_name(parameter.arg_type.as_ref())?;
        self.maybe(parameter.defexpr.as_deref())
    }

    pub(super) fn alter_function(&mut self, alter: &AlterFunctionStmt) -> Walk {
        let name =
            alter.func.as_ref().map_or_else(|| Ok(Vec::new()), |function| self.strings(&function.objname))?;
        self.object(kind::object_kind(alter.objtype()), name, Change::Alter);
        let code = self.function_options(&alter.actions)?;
        self.found.code = Some(code);
        Ok(())
    }

    /// A function, aggregate or operator named with its argument types.
    pub(super) fn object_with_args(&mut self, object: Option<&ObjectWithArgs>) -> Walk {
        let Some(object) = object else { return Ok(()) };
        self.each(&object.objargs)?;
        self.implementation(&object.objname)
    }

    pub(super) fn create_event_trigger(&mut self, trigger: &CreateEventTrigStmt) -> Walk {
        self.create_one("event_trigger", &trigger.trigname, &trigger.whenclause)?;
        self.implementation(&trigger.funcname)
    }

    /// `CREATE AGGREGATE`, `OPERATOR`, `TYPE`, `COLLATION`, text search objects.
    pub(super) fn define(&mut self, define: &DefineStmt) -> Walk {
        let name = self.strings(&define.defnames)?;
        let change = if define.replace { Change::Replace } else { Change::Create };
        self.object(kind::object_kind(define.kind()), name, change).conditional = define.if_not_exists;
        for option in names::options(&define.definition) {
            match define.kind() {
                // Their strings are settings: locales, files, stop words.
                ObjectType::ObjectCollation
                | ObjectType::ObjectTsdictionary
                | ObjectType::ObjectTsconfiguration => self.named_by(option)?,
                _ => self.defined_by(option)?,
            }
        }
        self.each(&define.args)
    }

    /// An option of a definition of something that functions implement. The server takes a function's name written as a bare name, a
    /// string or a list alike (`defGetQualifiedName` in its source, commands/define.c), so all but data may be one.
    pub(super) fn defined_by(&mut self, option: &DefElem) -> Walk {
        let data = DEFINED_DATA.contains(&option.defname.as_str());
        match option.arg.as_deref().and_then(|value| value.node.as_ref()) {
            Some(NodeEnum::String(name)) if !data => {
                let name = name.sval.clone();
                self.function(&[name], 0, FunctionRole::Implementation, false, false)
            }
            Some(NodeEnum::List(name)) if !data => self.implementation(&name.items),
            _ => self.named_by(option),
        }
    }

    /// An option in which a bare name may be that of a function.
    fn named_by(&mut self, option: &DefElem) -> Walk {
        match option.arg.as_deref().and_then(|value| value.node.as_ref()) {
            Some(NodeEnum::TypeName(name)) => {
                self.each(&name.typmods)?;
                self.implementation(&name.names)
            }
            _ => self.option(option),
        }
    }

    pub(super) fn create_range(&mut self, range: &CreateRangeStmt) -> Walk {
        self.create_named("type", &range.type_name, &[])?;
        self.range_options(&range.params)
    }

    fn range_options(&mut self, options: &[Node]) -> Walk {
        for option in names::options(options) {
            let value = option.arg.as_deref().and_then(|value| value.node.as_ref());
            match (option.defname.as_str(), value) {
                ("subtype", Some(NodeEnum::TypeName(name))) => self.type_name(Some(name))?,
                // Names of types, operator classes and collations.
                ("subtype" | "subtype_opclass" | "collation" | "multirange_type_name", _) => {
                    self.option(option)?;
                }
                _ => self.defined_by(option)?,
            }
        }
        Ok(())
    }

    pub(super) fn alter_type(&mut self, alter: &AlterTypeStmt) -> Walk {
        self.alter_named("type", &alter.type_name, &[])?;
        names::options(&alter.options).try_for_each(|option| self.defined_by(option))
    }

    pub(super) fn handlers(&mut self, options: &[Node]) -> Walk {
        for option in names::options(options) {
            if let Some(NodeEnum::List(name)) = option.arg.as_deref().and_then(|value| value.node.as_ref()) {
                self.implementation(&name.items)?;
            }
        }
        Ok(())
    }

    pub(super) fn create_domain(&mut self, domain: &CreateDomainStmt) -> Walk {
        self.create_named("domain", &domain.domainname, &domain.constraints)?;
        self.type_name(domain.type_name.as_ref())
    }

    pub(super) fn alter_domain(&mut self, domain: &AlterDomainStmt) -> Walk {
        self.cascade(domain.behavior());
        // T: default, N: drop not null, X: drop constraint (`AlterDomainStmt` in the server's source, nodes/parsenodes.h).
        self.found.flags.tests_domain |= !matches!(&*domain.subtype, "T" | "N" | "X");
        self.alter_named("domain", &domain.type_name, &[])?;
        self.maybe(domain.def.as_deref())
    }

    pub(super) fn create_composite(&mut self, composite: &CompositeTypeStmt) -> Walk {
        let name = composite.typevar.as_ref().map(names::range_parts).unwrap_or_default();
        self.object("type", name, Change::Create);
        self.each(&composite.coldeflist)
    }

    pub(super) fn create_cast(&mut self, cast: &CreateCastStmt) -> Walk {
        self.object("cast", Vec::new(), Change::Create);
        self.type_name(cast.sourcetype.as_ref())?;
        self.type_name(cast.targettype.as_ref())?;
        self.object_with_args(cast.func.as_ref())
    }

    pub(super) fn create_transform(&mut self, transform: &CreateTransformStmt) -> Walk {
        let change = if transform.replace { Change::Replace } else { Change::Create };
        self.object("transform", Vec::new(), change);
        self.type_name(transform.type_name.as_ref())?;
        self.object_with_args(transform.fromsql.as_ref())?;
        self.object_with_args(transform.tosql.as_ref())
    }

    pub(super) fn create_conversion(&mut self, conversion: &CreateConversionStmt) -> Walk {
        self.create_named("conversion", &conversion.conversion_name, &[])?;
        self.implementation(&conversion.func_name)
    }

    pub(super) fn create_operator_class(&mut self, class: &CreateOpClassStmt) -> Walk {
        self.create_named("operator_class", &class.opclassname, &class.items)?;
        self.type_name(class.datatype.as_ref())
    }

    pub(super) fn operator_class_item(&mut self, item: &CreateOpClassItem) -> Walk {
        self.object_with_args(item.name.as_ref())?;
        self.each(&item.class_args)?;
        self.type_name(item.storedtype.as_ref())
    }

    pub(super) fn alter_operator(&mut self, alter: &AlterOperatorStmt) -> Walk {
        let name =
            alter.opername.as_ref().map_or_else(|| Ok(Vec::new()), |object| self.strings(&object.objname))?;
        self.object("operator", name, Change::Alter);
        for option in names::options(&alter.options) {
            self.defined_by(option)?;
        }
        Ok(())
    }

    pub(super) fn create_access_method(&mut self, method: &CreateAmStmt) -> Walk {
        self.create_one("access_method", &method.amname, &[])?;
        self.implementation(&method.handler_name)
    }

    pub(super) fn create_language(&mut self, language: &CreatePLangStmt) -> Walk {
        self.create_one("language", &language.plname, &[])?;
        self.implementation(&language.plhandler)?;
        self.implementation(&language.plinline)?;
        self.implementation(&language.plvalidator)
    }

    pub(super) fn create_extension(&mut self, extension: &CreateExtensionStmt) -> Walk {
        self.object("extension", vec![extension.extname.clone()], Change::Create).conditional =
            extension.if_not_exists;
        self.each(&extension.options)
    }

    pub(super) fn alter_extension_contents(&mut self, extension: &AlterExtensionContentsStmt) -> Walk {
        self.alter_one("extension", &extension.extname, &[])?;
        let name = self.named(extension.object.as_deref())?;
        self.about(extension.objtype(), name, Change::Alter)?;
        Ok(())
    }

    pub(super) fn create_user_mapping(&mut self, mapping: &CreateUserMappingStmt) -> Walk {
        self.role(mapping.user.as_ref());
        self.found.flags.password |= !mapping.options.is_empty();
        self.create_one("user_mapping", &mapping.servername, &mapping.options)
    }

    pub(super) fn alter_user_mapping(&mut self, mapping: &AlterUserMappingStmt) -> Walk {
        self.role(mapping.user.as_ref());
        self.found.flags.password |= !mapping.options.is_empty();
        self.alter_one("user_mapping", &mapping.servername, &mapping.options)
    }

    pub(super) fn drop_user_mapping(&mut self, mapping: &DropUserMappingStmt) -> Walk {
        self.role(mapping.user.as_ref());
        self.drop_one("user_mapping", &mapping.servername, mapping.missing_ok);
        Ok(())
    }

    /// The tables it creates are known to the remote server only.
    pub(super) fn import_schema(&mut self, import: &ImportForeignSchemaStmt) -> Walk {
        self.object("foreign_schema", vec![import.local_schema.clone()], Change::Create);
        self.reaches_server(&import.server_name);
        self.each(&import.options)
    }

    /// What a foreign server shows is told by the options of its tables: any file or table there, this database's own too. That is judged
    /// as a change of the server.
    pub(super) fn reaches_server(&mut self, name: &str) {
        self.object("server", vec![name.to_owned()], Change::Alter);
    }

    pub(super) fn create_publication(&mut self, publication: &CreatePublicationStmt) -> Walk {
        self.create_one("publication", &publication.pubname, &publication.options)?;
        self.each(&publication.pubobjects)
    }

    pub(super) fn alter_publication(&mut self, publication: &AlterPublicationStmt) -> Walk {
        self.alter_one("publication", &publication.pubname, &publication.options)?;
        self.each(&publication.pubobjects)
    }

    pub(super) fn publication_object(&mut self, object: &PublicationObjSpec) -> Walk {
        object.pubtable.as_deref().map_or(Ok(()), |table| self.publication_table(table))
    }

    pub(super) fn publication_table(&mut self, table: &PublicationTable) -> Walk {
        if let Some(range) = table.relation.as_ref() {
            self.relation(range, Access::Reference);
        }
        self.maybe(table.where_clause.as_deref())
    }

    pub(super) fn create_subscription(&mut self, subscription: &CreateSubscriptionStmt) -> Walk {
        self.found.flags.password = true;
        self.create_one("subscription", &subscription.subname, &subscription.options)
    }

    pub(super) fn alter_subscription(&mut self, subscription: &AlterSubscriptionStmt) -> Walk {
        self.found.flags.password |= !subscription.conninfo.is_empty();
        self.alter_one("subscription", &subscription.subname, &subscription.options)
    }

    pub(super) fn create_tablespace(&mut self, space: &CreateTableSpaceStmt) -> Walk {
        self.role(space.owner.as_ref());
        self.create_one("tablespace", &space.tablespacename, &space.options)
    }

    pub(super) fn drop_objects(&mut self, drop: &DropStmt) -> Walk {
        let cascade = self.cascade(drop.behavior());
        for object in &drop.objects {
            let name = self.object_name(object)?;
            let change = self.about(drop.remove_type(), name, Change::Drop)?;
            change.conditional = drop.missing_ok;
            change.cascade = cascade;
        }
        Ok(())
    }

    /// Notes a change of an object of any kind; relations also get their access.
    fn about(&mut self, kind: ObjectType, name: Vec<String>, change: Change) -> Walk<&mut ObjectChange> {
        match kind {
            ObjectType::ObjectTable
            | ObjectType::ObjectView
            | ObjectType::ObjectMatview
            | ObjectType::ObjectSequence
            | ObjectType::ObjectForeignTable => {
                self.relation_parts(&name, Access::Ddl)?;
            }
            // The last part belongs to the table named before it.
            ObjectType::ObjectTrigger
            | ObjectType::ObjectRule
            | ObjectType::ObjectPolicy
            | ObjectType::ObjectTabconstraint
            | ObjectType::ObjectColumn => {
                if let Some((_, table)) = name.split_last().filter(|(_, table)| !table.is_empty()) {
                    self.relation_parts(table, Access::Ddl)?;
                }
            }
            ObjectType::Undefined => return self.not_understood("an object"),
            _ => {}
        }
        Ok(self.object(kind::object_kind(kind), name, change))
    }

    fn named(&mut self, object: Option<&Node>) -> Walk<Vec<String>> {
        object.map_or_else(|| Ok(Vec::new()), |object| self.object_name(object))
    }

    /// The name of what an `ALTER` is about, which the grammar puts in one of two places.
    fn altered(&mut self, range: Option<&RangeVar>, object: Option<&Node>) -> Walk<Vec<String>> {
        let Some(range) = range else { return self.named(object) };
        // Also of an index and a composite type: the server renames tables by `ALTER INDEX` and their columns by `ALTER TYPE` as well.
        self.relation(range, Access::Ddl);
        Ok(names::range_parts(range))
    }

    pub(super) fn rename(&mut self, rename: &RenameStmt) -> Walk {
        let kind = rename.rename_type();
        let cascade = self.cascade(rename.behavior());
        let mut name = self.altered(rename.relation.as_ref(), rename.object.as_deref())?;
        // Roles, databases and schemas keep their name here; columns and the like are parts of the object.
        name.extend(names::filled(&rename.subname));
        if kind == ObjectType::ObjectRole {
            self.role_named(&rename.subname);
        }
        let change = self.object(kind::object_kind(kind), name, Change::Rename);
        change.renamed = Some(rename.newname.clone());
        change.conditional = rename.missing_ok;
        change.cascade = cascade;
        Ok(())
    }

    pub(super) fn move_object(&mut self, alter: &AlterObjectSchemaStmt) -> Walk {
        let name = self.altered(alter.relation.as_ref(), alter.object.as_deref())?;
        let change = self.object(kind::object_kind(alter.object_type()), name, Change::Move);
        change.renamed = Some(alter.newschema.clone());
        change.conditional = alter.missing_ok;
        Ok(())
    }

    pub(super) fn change_owner(&mut self, alter: &AlterOwnerStmt) -> Walk {
        let name = self.altered(alter.relation.as_ref(), alter.object.as_deref())?;
        self.role(alter.newowner.as_ref());
        self.object(kind::object_kind(alter.object_type()), name, Change::Owner);
        Ok(())
    }

    pub(super) fn alter_depends(&mut self, alter: &AlterObjectDependsStmt) -> Walk {
        let name = self.altered(alter.relation.as_ref(), alter.object.as_deref())?;
        self.object(kind::object_kind(alter.object_type()), name, Change::Alter);
        Ok(())
    }

    /// `COMMENT` and `SECURITY LABEL`.
    pub(super) fn describe(&mut self, kind: ObjectType, object: Option<&Node>) -> Walk {
        let name = match (kind, object.and_then(|object| object.node.as_ref())) {
            // A cast or transform is a pair of types and names.
            (ObjectType::ObjectCast | ObjectType::ObjectTransform, _) => Vec::new(),
            _ => self.named(object)?,
        };
        self.about(kind, name, Change::Describe)?;
        Ok(())
    }

    /// Notes functions named in a grant.
    pub(super) fn granted_function(&mut self, name: &[String]) -> Walk {
        self.function(name, 0, FunctionRole::Implementation, false, false)
    }
}

/// Options of definitions of aggregates, operators, types and the like whose strings and lists name no function: values, properties, and
/// operators, which are found by what implements them. The server compares the names as they are.
const DEFINED_DATA: [&str; 17] = [
    "initcond",
    "initcond1",
    "initcond2",
    "minitcond",
    "parallel",
    "finalfunc_modify",
    "mfinalfunc_modify",
    "sortop",
    "commutator",
    "negator",
    "alignment",
    "storage",
    "category",
    "default",
    "delimiter",
    "internallength",
    "collatable",
];

/// Options whose literal is a secret, of roles, servers and mappings.
fn is_secret_option(name: &str) -> bool {
    ["password", "passphrase", "passwd", "secret", "token", "sslkey", "conninfo", "connection"]
        .iter()
        .any(|part| name.contains(part))
        && name != "connectionlimit"
        && name != "connection_limit"
}

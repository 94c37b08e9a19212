//! Names for commands and kinds of objects.

use std::borrow::Cow;

use pg_query::NodeEnum;
use pg_query::protobuf::{
    AlterTableStmt, CopyStmt, CreateTableAsStmt, DefineStmt, GrantStmt, ObjectType, SelectStmt,
    TransactionStmtKind, VariableSetKind, VariableSetStmt,
};

/// Lower-case name of a kind of object.
pub(super) fn object_kind(kind: ObjectType) -> &'static str {
    match kind {
        ObjectType::Undefined => "unknown",
        ObjectType::ObjectAccessMethod => "access_method",
        ObjectType::ObjectAggregate => "aggregate",
        ObjectType::ObjectAmop => "operator_of_family",
        ObjectType::ObjectAmproc => "function_of_family",
        ObjectType::ObjectAttribute => "attribute",
        ObjectType::ObjectCast => "cast",
        ObjectType::ObjectColumn => "column",
        ObjectType::ObjectCollation => "collation",
        ObjectType::ObjectConversion => "conversion",
        ObjectType::ObjectDatabase => "database",
        ObjectType::ObjectDefault => "default",
        ObjectType::ObjectDefacl => "default_privileges",
        ObjectType::ObjectDomain => "domain",
        ObjectType::ObjectDomconstraint => "domain_constraint",
        ObjectType::ObjectEventTrigger => "event_trigger",
        ObjectType::ObjectExtension => "extension",
        ObjectType::ObjectFdw => "foreign_data_wrapper",
        ObjectType::ObjectForeignServer => "server",
        ObjectType::ObjectForeignTable => "foreign_table",
        ObjectType::ObjectFunction => "function",
        ObjectType::ObjectIndex => "index",
        ObjectType::ObjectLanguage => "language",
        ObjectType::ObjectLargeobject => "large_object",
        ObjectType::ObjectMatview => "materialized_view",
        ObjectType::ObjectOpclass => "operator_class",
        ObjectType::ObjectOperator => "operator",
        ObjectType::ObjectOpfamily => "operator_family",
        ObjectType::ObjectParameterAcl => "parameter",
        ObjectType::ObjectPolicy => "policy",
        ObjectType::ObjectProcedure => "procedure",
        ObjectType::ObjectPublication => "publication",
        ObjectType::ObjectPublicationNamespace => "publication_schema",
        ObjectType::ObjectPublicationRel => "publication_table",
        ObjectType::ObjectRole => "role",
        ObjectType::ObjectRoutine => "routine",
        ObjectType::ObjectRule => "rule",
        ObjectType::ObjectSchema => "schema",
        ObjectType::ObjectSequence => "sequence",
        ObjectType::ObjectSubscription => "subscription",
        ObjectType::ObjectStatisticExt => "statistics",
        ObjectType::ObjectTabconstraint => "constraint",
        ObjectType::ObjectTable => "table",
        ObjectType::ObjectTablespace => "tablespace",
        ObjectType::ObjectTransform => "transform",
        ObjectType::ObjectTrigger => "trigger",
        ObjectType::ObjectTsconfiguration => "text_search_configuration",
        ObjectType::ObjectTsdictionary => "text_search_dictionary",
        ObjectType::ObjectTsparser => "text_search_parser",
        ObjectType::ObjectTstemplate => "text_search_template",
        ObjectType::ObjectType => "type",
        ObjectType::ObjectUserMapping => "user_mapping",
        ObjectType::ObjectView => "view",
    }
}

/// Lower-case name of a command; `None` for what is no statement of its own.
pub(super) fn kind(node: &NodeEnum) -> Option<Cow<'static, str>> {
    let name = match node {
        NodeEnum::SelectStmt(select) => select_kind(select),
        NodeEnum::CopyStmt(copy) => copy_kind(copy),
        NodeEnum::CreateTableAsStmt(create) => create_as_kind(create),
        NodeEnum::VariableSetStmt(set) => set_kind(set),
        NodeEnum::TransactionStmt(transaction) => transaction_kind(transaction.kind())?,
        NodeEnum::GrantStmt(GrantStmt { is_grant: true, .. }) => "grant",
        NodeEnum::GrantStmt(_) => "revoke",
        NodeEnum::GrantRoleStmt(grant) => {
            if grant.is_grant {
                "grant_role"
            } else {
                "revoke_role"
            }
        }
        NodeEnum::FetchStmt(fetch) => {
            if fetch.ismove {
                "move"
            } else {
                "fetch"
            }
        }
        NodeEnum::VacuumStmt(vacuum) => {
            if vacuum.is_vacuumcmd {
                "vacuum"
            } else {
                "analyze"
            }
        }
        NodeEnum::CreateFunctionStmt(function) => {
            if function.is_procedure {
                "create_procedure"
            } else {
                "create_function"
            }
        }
        NodeEnum::DropStmt(drop) => return about("drop", drop.remove_type()),
        NodeEnum::RenameStmt(rename) => return about("rename", rename.rename_type()),
        NodeEnum::AlterTableStmt(AlterTableStmt { objtype, .. })
        | NodeEnum::AlterFunctionStmt(pg_query::protobuf::AlterFunctionStmt { objtype, .. }) => {
            return about("alter", ObjectType::try_from(*objtype).ok()?);
        }
        NodeEnum::AlterObjectSchemaStmt(alter) => return about("alter", alter.object_type()),
        NodeEnum::AlterOwnerStmt(alter) => return about("alter", alter.object_type()),
        NodeEnum::AlterObjectDependsStmt(alter) => return about("alter", alter.object_type()),
        NodeEnum::DefineStmt(DefineStmt { kind, .. }) => {
            return about("create", ObjectType::try_from(*kind).ok()?);
        }
        NodeEnum::InsertStmt(_) => "insert",
        NodeEnum::UpdateStmt(_) => "update",
        NodeEnum::DeleteStmt(_) => "delete",
        NodeEnum::MergeStmt(_) => "merge",
        NodeEnum::ExplainStmt(_) => "explain",
        NodeEnum::DeclareCursorStmt(_) => "declare_cursor",
        NodeEnum::ClosePortalStmt(_) => "close",
        NodeEnum::PrepareStmt(_) => "prepare",
        NodeEnum::ExecuteStmt(_) => "execute",
        NodeEnum::DeallocateStmt(_) => "deallocate",
        NodeEnum::VariableShowStmt(_) => "show",
        NodeEnum::DiscardStmt(_) => "discard",
        NodeEnum::ListenStmt(_) => "listen",
        NodeEnum::NotifyStmt(_) => "notify",
        NodeEnum::UnlistenStmt(_) => "unlisten",
        NodeEnum::LockStmt(_) => "lock",
        NodeEnum::TruncateStmt(_) => "truncate",
        NodeEnum::DoStmt(_) => "do",
        NodeEnum::CallStmt(_) => "call",
        NodeEnum::ReindexStmt(_) => "reindex",
        NodeEnum::RefreshMatViewStmt(_) => "refresh",
        NodeEnum::LoadStmt(_) => "load",
        NodeEnum::CommentStmt(_) => "comment",
        NodeEnum::SecLabelStmt(_) => "security_label",
        NodeEnum::ClusterStmt(_) => "cluster",
        NodeEnum::CheckPointStmt(_) => "checkpoint",
        NodeEnum::ConstraintsSetStmt(_) => "set_constraints",
        NodeEnum::CreateStmt(_) => "create_table",
        NodeEnum::CreateForeignTableStmt(_) => "create_foreign_table",
        NodeEnum::ViewStmt(_) => "create_view",
        NodeEnum::IndexStmt(_) => "create_index",
        NodeEnum::CreateSeqStmt(_) => "create_sequence",
        NodeEnum::AlterSeqStmt(_) => "alter_sequence",
        NodeEnum::CreateStatsStmt(_) => "create_statistics",
        NodeEnum::AlterStatsStmt(_) => "alter_statistics",
        NodeEnum::CreateSchemaStmt(_) => "create_schema",
        NodeEnum::CreateTrigStmt(_) => "create_trigger",
        NodeEnum::CreateEventTrigStmt(_) => "create_event_trigger",
        NodeEnum::AlterEventTrigStmt(_) => "alter_event_trigger",
        NodeEnum::RuleStmt(_) => "create_rule",
        NodeEnum::CreatePolicyStmt(_) => "create_policy",
        NodeEnum::AlterPolicyStmt(_) => "alter_policy",
        NodeEnum::CreateDomainStmt(_) => "create_domain",
        NodeEnum::AlterDomainStmt(_) => "alter_domain",
        NodeEnum::CompositeTypeStmt(_) | NodeEnum::CreateEnumStmt(_) | NodeEnum::CreateRangeStmt(_) => {
            "create_type"
        }
        NodeEnum::AlterEnumStmt(_) | NodeEnum::AlterTypeStmt(_) => "alter_type",
        NodeEnum::CreateCastStmt(_) => "create_cast",
        NodeEnum::CreateTransformStmt(_) => "create_transform",
        NodeEnum::CreateConversionStmt(_) => "create_conversion",
        NodeEnum::CreateOpClassStmt(_) => "create_operator_class",
        NodeEnum::CreateOpFamilyStmt(_) => "create_operator_family",
        NodeEnum::AlterOpFamilyStmt(_) => "alter_operator_family",
        NodeEnum::AlterOperatorStmt(_) => "alter_operator",
        NodeEnum::AlterCollationStmt(_) => "alter_collation",
        NodeEnum::CreateAmStmt(_) => "create_access_method",
        NodeEnum::CreatePlangStmt(_) => "create_language",
        NodeEnum::CreateExtensionStmt(_) => "create_extension",
        NodeEnum::AlterExtensionStmt(_) | NodeEnum::AlterExtensionContentsStmt(_) => "alter_extension",
        NodeEnum::CreateFdwStmt(_) => "create_foreign_data_wrapper",
        NodeEnum::AlterFdwStmt(_) => "alter_foreign_data_wrapper",
        NodeEnum::CreateForeignServerStmt(_) => "create_server",
        NodeEnum::AlterForeignServerStmt(_) => "alter_server",
        NodeEnum::CreateUserMappingStmt(_) => "create_user_mapping",
        NodeEnum::AlterUserMappingStmt(_) => "alter_user_mapping",
        NodeEnum::DropUserMappingStmt(_) => "drop_user_mapping",
        NodeEnum::ImportForeignSchemaStmt(_) => "import_foreign_schema",
        NodeEnum::CreatePublicationStmt(_) => "create_publication",
        NodeEnum::AlterPublicationStmt(_) => "alter_publication",
        NodeEnum::CreateSubscriptionStmt(_) => "create_subscription",
        NodeEnum::AlterSubscriptionStmt(_) => "alter_subscription",
        NodeEnum::DropSubscriptionStmt(_) => "drop_subscription",
        NodeEnum::CreateTableSpaceStmt(_) => "create_tablespace",
        NodeEnum::DropTableSpaceStmt(_) => "drop_tablespace",
        NodeEnum::AlterTableSpaceOptionsStmt(_) | NodeEnum::AlterTableMoveAllStmt(_) => "alter_tablespace",
        NodeEnum::AlterTsdictionaryStmt(_) => "alter_text_search_dictionary",
        NodeEnum::AlterTsconfigurationStmt(_) => "alter_text_search_configuration",
        NodeEnum::CreatedbStmt(_) => "create_database",
        NodeEnum::AlterDatabaseStmt(_)
        | NodeEnum::AlterDatabaseRefreshCollStmt(_)
        | NodeEnum::AlterDatabaseSetStmt(_) => "alter_database",
        NodeEnum::DropdbStmt(_) => "drop_database",
        NodeEnum::AlterSystemStmt(_) => "alter_system",
        NodeEnum::CreateRoleStmt(_) => "create_role",
        NodeEnum::AlterRoleStmt(_) | NodeEnum::AlterRoleSetStmt(_) => "alter_role",
        NodeEnum::DropRoleStmt(_) => "drop_role",
        NodeEnum::AlterDefaultPrivilegesStmt(_) => "alter_default_privileges",
        NodeEnum::DropOwnedStmt(_) => "drop_owned",
        NodeEnum::ReassignOwnedStmt(_) => "reassign_owned",
        // Parts of statements. A new kind of statement lands here too and is refused.
        _ => return None,
    };
    Some(Cow::Borrowed(name))
}

fn about(verb: &str, kind: ObjectType) -> Option<Cow<'static, str>> {
    (kind != ObjectType::Undefined).then(|| Cow::Owned(format!("{verb}_{}", object_kind(kind))))
}

fn select_kind(select: &SelectStmt) -> &'static str {
    // `INTO` of a set operation stands in its leftmost query.
    let mut leftmost = select;
    while let Some(left) = leftmost.larg.as_deref() {
        leftmost = left;
    }
    if leftmost.into_clause.is_some() { "select_into" } else { "select" }
}

fn copy_kind(copy: &CopyStmt) -> &'static str {
    if copy.is_from { "copy_from" } else { "copy_to" }
}

fn create_as_kind(create: &CreateTableAsStmt) -> &'static str {
    match create.objtype() {
        ObjectType::ObjectMatview => "create_materialized_view",
        _ => "create_table_as",
    }
}

fn set_kind(set: &VariableSetStmt) -> &'static str {
    match set.kind() {
        VariableSetKind::VarReset | VariableSetKind::VarResetAll => "reset",
        VariableSetKind::VarSetMulti => "set_transaction",
        VariableSetKind::Undefined
        | VariableSetKind::VarSetValue
        | VariableSetKind::VarSetDefault
        | VariableSetKind::VarSetCurrent => "set",
    }
}

fn transaction_kind(kind: TransactionStmtKind) -> Option<&'static str> {
    Some(match kind {
        TransactionStmtKind::TransStmtBegin | TransactionStmtKind::TransStmtStart => "begin",
        TransactionStmtKind::TransStmtCommit => "commit",
        TransactionStmtKind::TransStmtRollback => "rollback",
        TransactionStmtKind::TransStmtSavepoint => "savepoint",
        TransactionStmtKind::TransStmtRelease => "release",
        TransactionStmtKind::TransStmtRollbackTo => "rollback_to",
        TransactionStmtKind::TransStmtPrepare => "prepare_transaction",
        TransactionStmtKind::TransStmtCommitPrepared => "commit_prepared",
        TransactionStmtKind::TransStmtRollbackPrepared => "rollback_prepared",
        TransactionStmtKind::Undefined => return None,
    })
}

//! The dispatch: one arm for every kind of node, none left to a default.

use pg_query::NodeEnum;
use pg_query::protobuf::{
    AConst, AExpr, AExprKind, CaseExpr, ColumnRef, FuncCall, JsonAggConstructor, JsonBehavior, JsonFuncExpr,
    JsonKeyValue, JsonOutput, JsonTable, JsonTableColumn, JsonValueExpr, Node, SortBy, SubLink, SubLinkType,
    WindowDef, a_const::Val,
};

use super::super::literals::is_connection_string;
use super::super::model::{FunctionRole, Place, SettingChange, SettingKind, SettingScope};
use super::super::variants::integer_met;
use super::{Walk, Walker, names};

impl Walker {
    /// Walks one node. An empty node stands for an absent item (`*` bounds, `GROUP BY ()`).
    pub(super) fn node(&mut self, node: &Node) -> Walk {
        self.within_budget()?;
        let Some(node) = node.node.as_ref() else { return Ok(()) };
        match node {
            // Leaves that name nothing.
            NodeEnum::Alias(_)
            | NodeEnum::AStar(_)
            | NodeEnum::BitString(_)
            | NodeEnum::Boolean(_)
            | NodeEnum::CtesearchClause(_)
            | NodeEnum::CurrentOfExpr(_)
            | NodeEnum::Float(_)
            | NodeEnum::Integer(_)
            | NodeEnum::JsonFormat(_)
            | NodeEnum::JsonReturning(_)
            | NodeEnum::MergeSupportFunc(_)
            | NodeEnum::ReplicaIdentityStmt(_)
            | NodeEnum::ReturningOption(_)
            | NodeEnum::SetToDefault(_)
            | NodeEnum::SqlvalueFunction(_)
            | NodeEnum::TriggerTransition(_)
            | NodeEnum::AtalterConstraint(_)
            | NodeEnum::IntList(_)
            | NodeEnum::OidList(_) => Ok(()),
            NodeEnum::AConst(constant) => {
                self.constant(constant);
                Ok(())
            }
            NodeEnum::String(string) => {
                self.text(&string.sval);
                Ok(())
            }
            NodeEnum::ParamRef(parameter) => {
                self.found.parameters =
                    self.found.parameters.max(u32::try_from(parameter.number).unwrap_or(u32::MAX));
                Ok(())
            }

            // Expressions.
            NodeEnum::List(list) => self.each(&list.items),
            NodeEnum::ColumnRef(column) => self.column_ref(column),
            NodeEnum::AExpr(expression) => self.operator_expression(expression),
            NodeEnum::BoolExpr(expression) => self.each(&expression.args),
            NodeEnum::TypeCast(cast) => {
                self.type_name(cast.type_name.as_ref())?;
                self.maybe(cast.arg.as_deref())
            }
            NodeEnum::CollateClause(collate) => {
                self.strings(&collate.collname)?;
                self.maybe(collate.arg.as_deref())
            }
            NodeEnum::FuncCall(call) => self.call(call),
            NodeEnum::NamedArgExpr(argument) => self.maybe(argument.arg.as_deref()),
            NodeEnum::SubLink(link) => self.sub_link(link),
            NodeEnum::CaseExpr(case) => self.case(case),
            NodeEnum::CaseWhen(when) => {
                self.maybe(when.expr.as_deref())?;
                self.maybe(when.result.as_deref())
            }
            NodeEnum::RowExpr(row) => self.each(&row.args),
            NodeEnum::CoalesceExpr(coalesce) => self.each(&coalesce.args),
            NodeEnum::MinMaxExpr(extreme) => self.each(&extreme.args),
            NodeEnum::GroupingFunc(grouping) => self.each(&grouping.args),
            NodeEnum::NullTest(test) => self.maybe(test.arg.as_deref()),
            NodeEnum::BooleanTest(test) => self.maybe(test.arg.as_deref()),
            NodeEnum::AIndices(indices) => {
                self.maybe(indices.lidx.as_deref())?;
                self.maybe(indices.uidx.as_deref())
            }
            NodeEnum::AIndirection(indirection) => {
                self.maybe(indirection.arg.as_deref())?;
                self.indirection(&indirection.indirection)
            }
            NodeEnum::AArrayExpr(array) => self.each(&array.elements),
            NodeEnum::MultiAssignRef(assignment) => self.maybe(assignment.source.as_deref()),
            NodeEnum::XmlExpr(xml) => {
                self.each(&xml.named_args)?;
                self.each(&xml.args)
            }
            NodeEnum::XmlSerialize(xml) => {
                self.type_name(xml.type_name.as_ref())?;
                self.maybe(xml.expr.as_deref())
            }

            // SQL/JSON.
            NodeEnum::JsonValueExpr(value) => self.json_value(Some(value)),
            NodeEnum::JsonIsPredicate(test) => self.maybe(test.expr.as_deref()),
            NodeEnum::JsonBehavior(behavior) => self.json_behavior(Some(behavior)),
            NodeEnum::JsonOutput(output) => self.json_output(Some(output)),
            NodeEnum::JsonArgument(argument) => self.json_value(argument.val.as_deref()),
            NodeEnum::JsonFuncExpr(call) => self.json_function(call),
            NodeEnum::JsonTablePathSpec(path) => self.maybe(path.string.as_deref()),
            NodeEnum::JsonTable(table) => self.json_table(table),
            NodeEnum::JsonTableColumn(column) => self.json_table_column(column),
            NodeEnum::JsonKeyValue(pair) => self.json_pair(Some(pair)),
            NodeEnum::JsonParseExpr(json) => {
                self.json_value(json.expr.as_deref())?;
                self.json_output(json.output.as_ref())
            }
            NodeEnum::JsonScalarExpr(json) => {
                self.maybe(json.expr.as_deref())?;
                self.json_output(json.output.as_ref())
            }
            NodeEnum::JsonSerializeExpr(json) => {
                self.json_value(json.expr.as_deref())?;
                self.json_output(json.output.as_ref())
            }
            NodeEnum::JsonObjectConstructor(json) => {
                self.each(&json.exprs)?;
                self.json_output(json.output.as_ref())
            }
            NodeEnum::JsonArrayConstructor(json) => {
                self.each(&json.exprs)?;
                self.json_output(json.output.as_ref())
            }
            NodeEnum::JsonArrayQueryConstructor(json) => {
                let outputs = self.subquery(json.query.as_deref())?;
                // What it yields goes into the expression around it.
                self.mark(outputs.iter(), self.place);
                self.json_output(json.output.as_ref())
            }
            NodeEnum::JsonAggConstructor(aggregate) => self.json_aggregate(Some(aggregate)),
            NodeEnum::JsonObjectAgg(aggregate) => {
                self.json_aggregate(aggregate.constructor.as_deref())?;
                self.json_pair(aggregate.arg.as_deref())
            }
            NodeEnum::JsonArrayAgg(aggregate) => {
                self.json_aggregate(aggregate.constructor.as_deref())?;
                self.json_value(aggregate.arg.as_deref())
            }

            // Parts of queries.
            NodeEnum::ResTarget(target) => {
                self.indirection(&target.indirection)?;
                self.maybe(target.val.as_deref())
            }
            NodeEnum::SortBy(sort) => self.sort(sort),
            NodeEnum::WindowDef(window) => self.window(window),
            NodeEnum::GroupingSet(set) => self.each(&set.content),
            NodeEnum::LockingClause(clause) => self.locking(clause),
            NodeEnum::WithClause(with) => self.with(Some(with)),
            NodeEnum::CommonTableExpr(cte) => self.maybe(cte.ctequery.as_deref()),
            NodeEnum::CtecycleClause(cycle) => self.cycle(cycle),
            NodeEnum::RangeVar(range) => self.range_relation(range),
            NodeEnum::RangeSubselect(range) => self.range_subquery(range),
            NodeEnum::RangeFunction(range) => self.range_function(range),
            NodeEnum::RangeTableFunc(range) => self.range_xml_table(range),
            NodeEnum::RangeTableFuncCol(column) => {
                self.type_name(column.type_name.as_ref())?;
                self.maybe(column.colexpr.as_deref())?;
                self.maybe(column.coldefexpr.as_deref())
            }
            NodeEnum::RangeTableSample(range) => self.range_sample(range),
            NodeEnum::JoinExpr(join) => self.join(join),
            NodeEnum::IntoClause(into) => self.select_into(into),
            NodeEnum::InferClause(infer) => self.infer(infer),
            NodeEnum::OnConflictClause(clause) => self.maybe(clause.where_clause.as_deref()),
            NodeEnum::MergeWhenClause(clause) => self.maybe(clause.condition.as_deref()),
            NodeEnum::ReturningClause(clause) => self.each(&clause.exprs),

            // Queries and modifications.
            NodeEnum::SelectStmt(select) => {
                self.found.outputs = self.select(select)?;
                Ok(())
            }
            NodeEnum::InsertStmt(insert) => {
                self.found.outputs = self.insert(insert)?;
                Ok(())
            }
            NodeEnum::UpdateStmt(update) => {
                self.found.outputs = self.update(update)?;
                Ok(())
            }
            NodeEnum::DeleteStmt(delete) => {
                self.found.outputs = self.delete(delete)?;
                Ok(())
            }
            NodeEnum::MergeStmt(merge) => {
                self.found.outputs = self.merge(merge)?;
                Ok(())
            }
            NodeEnum::ReturnStmt(returns) => self.maybe(returns.returnval.as_deref()),
            NodeEnum::RawStmt(raw) => self.maybe(raw.stmt.as_deref()),

            // Parts of definitions.
            NodeEnum::TypeName(name) => self.type_name(Some(name)),
            NodeEnum::RoleSpec(role) => {
                self.role(Some(role));
                Ok(())
            }
            NodeEnum::DefElem(option) => self.option(option),
            NodeEnum::ColumnDef(column) => self.column_def(column),
            NodeEnum::TableLikeClause(like) => self.like(like),
            NodeEnum::Constraint(constraint) => self.constraint(constraint),
            NodeEnum::IndexElem(element) => self.index_element(element),
            NodeEnum::StatsElem(element) => self.maybe(element.expr.as_deref()),
            NodeEnum::PartitionElem(element) => self.maybe(element.expr.as_deref()),
            NodeEnum::PartitionSpec(spec) => self.each(&spec.part_params),
            NodeEnum::PartitionBoundSpec(bound) => self.partition_bound(Some(bound)),
            NodeEnum::PartitionRangeDatum(datum) => self.maybe(datum.value.as_deref()),
            NodeEnum::PartitionCmd(command) => self.partition_command(command),
            NodeEnum::AlterTableCmd(command) => self.alter_table_command(command),
            NodeEnum::AccessPriv(privilege) => self.each(&privilege.cols),
            NodeEnum::ObjectWithArgs(object) => self.object_with_args(Some(object)),
            NodeEnum::FunctionParameter(parameter) => self.function_parameter(parameter),
            NodeEnum::CreateOpClassItem(item) => self.operator_class_item(item),
            NodeEnum::PublicationObjSpec(object) => self.publication_object(object),
            NodeEnum::PublicationTable(table) => self.publication_table(table),
            NodeEnum::VacuumRelation(vacuum) => self.vacuum_relation(vacuum),

            // Definitions.
            NodeEnum::CreateStmt(create) => self.create_table(create, "table"),
            NodeEnum::CreateForeignTableStmt(create) => self.create_foreign_table(create),
            NodeEnum::ViewStmt(view) => self.create_view(view),
            NodeEnum::CreateTableAsStmt(create) => self.create_table_as(create),
            NodeEnum::RefreshMatViewStmt(refresh) => self.refresh(refresh),
            NodeEnum::IndexStmt(index) => self.create_index(index),
            NodeEnum::CreateSeqStmt(sequence) => self.create_sequence(sequence),
            NodeEnum::AlterSeqStmt(sequence) => self.alter_sequence(sequence),
            NodeEnum::CreateStatsStmt(statistics) => self.create_statistics(statistics),
            NodeEnum::AlterStatsStmt(statistics) => self.alter_named("statistics", &statistics.defnames, &[]),
            NodeEnum::CreateSchemaStmt(schema) => self.create_schema(schema),
            NodeEnum::CreateFunctionStmt(function) => self.create_function(function),
            NodeEnum::AlterFunctionStmt(function) => self.alter_function(function),
            NodeEnum::CreateTrigStmt(trigger) => self.create_trigger(trigger),
            NodeEnum::CreateEventTrigStmt(trigger) => self.create_event_trigger(trigger),
            NodeEnum::AlterEventTrigStmt(trigger) => self.alter_one("event_trigger", &trigger.trigname, &[]),
            NodeEnum::RuleStmt(rule) => self.create_rule(rule),
            NodeEnum::CreatePolicyStmt(policy) => self.create_policy(policy),
            NodeEnum::AlterPolicyStmt(policy) => self.alter_policy(policy),
            NodeEnum::DefineStmt(define) => self.define(define),
            NodeEnum::CreateDomainStmt(domain) => self.create_domain(domain),
            NodeEnum::AlterDomainStmt(domain) => self.alter_domain(domain),
            NodeEnum::CompositeTypeStmt(composite) => self.create_composite(composite),
            NodeEnum::CreateEnumStmt(create) => self.create_named("type", &create.type_name, &[]),
            NodeEnum::CreateRangeStmt(create) => self.create_range(create),
            NodeEnum::AlterEnumStmt(alter) => self.alter_named("type", &alter.type_name, &[]),
            NodeEnum::AlterTypeStmt(alter) => self.alter_type(alter),
            NodeEnum::CreateCastStmt(cast) => self.create_cast(cast),
            NodeEnum::CreateTransformStmt(transform) => self.create_transform(transform),
            NodeEnum::CreateConversionStmt(conversion) => self.create_conversion(conversion),
            NodeEnum::CreateOpClassStmt(class) => self.create_operator_class(class),
            NodeEnum::CreateOpFamilyStmt(family) => {
                self.create_named("operator_family", &family.opfamilyname, &[])
            }
            NodeEnum::AlterOpFamilyStmt(family) => {
                self.alter_named("operator_family", &family.opfamilyname, &family.items)
            }
            NodeEnum::AlterOperatorStmt(operator) => self.alter_operator(operator),
            NodeEnum::AlterCollationStmt(collation) => {
                self.alter_named("collation", &collation.collname, &[])
            }
            NodeEnum::CreateAmStmt(method) => self.create_access_method(method),
            NodeEnum::CreatePlangStmt(language) => self.create_language(language),
            NodeEnum::CreateExtensionStmt(extension) => self.create_extension(extension),
            NodeEnum::AlterExtensionStmt(extension) => {
                self.alter_one("extension", &extension.extname, &extension.options)
            }
            NodeEnum::AlterExtensionContentsStmt(extension) => self.alter_extension_contents(extension),
            NodeEnum::CreateFdwStmt(wrapper) => {
                self.create_one("foreign_data_wrapper", &wrapper.fdwname, &wrapper.options)?;
                self.handlers(&wrapper.func_options)
            }
            NodeEnum::AlterFdwStmt(wrapper) => {
                self.alter_one("foreign_data_wrapper", &wrapper.fdwname, &wrapper.options)?;
                self.handlers(&wrapper.func_options)
            }
            NodeEnum::CreateForeignServerStmt(server) => {
                self.create_one("server", &server.servername, &server.options)
            }
            NodeEnum::AlterForeignServerStmt(server) => {
                self.alter_one("server", &server.servername, &server.options)
            }
            NodeEnum::CreateUserMappingStmt(mapping) => self.create_user_mapping(mapping),
            NodeEnum::AlterUserMappingStmt(mapping) => self.alter_user_mapping(mapping),
            NodeEnum::DropUserMappingStmt(mapping) => self.drop_user_mapping(mapping),
            NodeEnum::ImportForeignSchemaStmt(import) => self.import_schema(import),
            NodeEnum::CreatePublicationStmt(publication) => self.create_publication(publication),
            NodeEnum::AlterPublicationStmt(publication) => self.alter_publication(publication),
            NodeEnum::CreateSubscriptionStmt(subscription) => self.create_subscription(subscription),
            NodeEnum::AlterSubscriptionStmt(subscription) => self.alter_subscription(subscription),
            NodeEnum::DropSubscriptionStmt(subscription) => {
                self.drop_one("subscription", &subscription.subname, subscription.missing_ok);
                Ok(())
            }
            NodeEnum::CreateTableSpaceStmt(space) => self.create_tablespace(space),
            NodeEnum::DropTableSpaceStmt(space) => {
                self.drop_one("tablespace", &space.tablespacename, space.missing_ok);
                Ok(())
            }
            NodeEnum::AlterTableSpaceOptionsStmt(space) => {
                self.alter_one("tablespace", &space.tablespacename, &space.options)
            }
            NodeEnum::AlterTableMoveAllStmt(space) => {
                self.each(&space.roles)?;
                self.alter_one("tablespace", &space.orig_tablespacename, &[])
            }
            NodeEnum::AlterTsdictionaryStmt(dictionary) => {
                self.alter_named("text_search_dictionary", &dictionary.dictname, &dictionary.options)
            }
            NodeEnum::AlterTsconfigurationStmt(configuration) => {
                self.alter_named("text_search_configuration", &configuration.cfgname, &[])
            }
            NodeEnum::CreatedbStmt(database) => {
                self.create_one("database", &database.dbname, &database.options)
            }
            NodeEnum::AlterDatabaseStmt(database) => {
                self.alter_one("database", &database.dbname, &database.options)
            }
            NodeEnum::AlterDatabaseRefreshCollStmt(database) => {
                self.alter_one("database", &database.dbname, &[])
            }
            NodeEnum::AlterDatabaseSetStmt(database) => self.alter_database_set(database),
            NodeEnum::DropdbStmt(database) => {
                self.drop_one("database", &database.dbname, database.missing_ok);
                Ok(())
            }
            NodeEnum::AlterTableStmt(alter) => self.alter_table(alter),
            NodeEnum::DropStmt(drop) => self.drop_objects(drop),
            NodeEnum::RenameStmt(rename) => self.rename(rename),
            NodeEnum::AlterObjectSchemaStmt(alter) => self.move_object(alter),
            NodeEnum::AlterOwnerStmt(alter) => self.change_owner(alter),
            NodeEnum::AlterObjectDependsStmt(alter) => self.alter_depends(alter),
            NodeEnum::CommentStmt(comment) => self.describe(comment.objtype(), comment.object.as_deref()),
            NodeEnum::SecLabelStmt(label) => self.describe(label.objtype(), label.object.as_deref()),

            // Roles and privileges.
            NodeEnum::CreateRoleStmt(role) => self.create_role(role),
            NodeEnum::AlterRoleStmt(role) => self.alter_role(role),
            NodeEnum::AlterRoleSetStmt(role) => self.alter_role_set(role),
            NodeEnum::DropRoleStmt(role) => self.drop_role(role),
            NodeEnum::GrantStmt(grant) => self.grant(grant),
            NodeEnum::GrantRoleStmt(grant) => self.grant_role(grant),
            NodeEnum::AlterDefaultPrivilegesStmt(alter) => self.default_privileges(alter),
            NodeEnum::DropOwnedStmt(drop) => self.drop_owned(drop),
            NodeEnum::ReassignOwnedStmt(reassign) => self.reassign_owned(reassign),

            // Commands.
            NodeEnum::CopyStmt(copy) => self.copy(copy),
            NodeEnum::TruncateStmt(truncate) => self.truncate(truncate),
            NodeEnum::LockStmt(lock) => self.lock(lock),
            NodeEnum::VacuumStmt(vacuum) => self.vacuum(vacuum),
            NodeEnum::ClusterStmt(cluster) => self.cluster(cluster),
            NodeEnum::ReindexStmt(reindex) => self.reindex(reindex),
            NodeEnum::ExplainStmt(explain) => self.explain(explain),
            NodeEnum::PrepareStmt(prepare) => self.prepare(prepare),
            NodeEnum::ExecuteStmt(execute) => self.execute(execute),
            NodeEnum::DeallocateStmt(deallocate) => self.deallocate(deallocate),
            NodeEnum::DeclareCursorStmt(declare) => self.declare(declare),
            NodeEnum::FetchStmt(fetch) => self.fetch(fetch),
            NodeEnum::ClosePortalStmt(close) => self.close_cursor(close),
            NodeEnum::TransactionStmt(transaction) => self.transaction(transaction),
            NodeEnum::ConstraintsSetStmt(_) => Ok(()),
            NodeEnum::VariableSetStmt(set) => self.set(set, SettingScope::Session),
            NodeEnum::VariableShowStmt(_) => Ok(()),
            NodeEnum::DiscardStmt(discard) => self.discard(discard),
            NodeEnum::AlterSystemStmt(alter) => self.alter_system(alter),
            NodeEnum::DoStmt(block) => self.do_block(block),
            NodeEnum::CallStmt(call) => self.call_procedure(call),
            NodeEnum::NotifyStmt(_)
            | NodeEnum::ListenStmt(_)
            | NodeEnum::UnlistenStmt(_)
            | NodeEnum::CheckPointStmt(_)
            | NodeEnum::LoadStmt(_) => {
                self.writes();
                Ok(())
            }

            // Made by analysis, planning, execution or PL/pgSQL, never by this grammar.
            NodeEnum::TableFunc(_)
            | NodeEnum::Var(_)
            | NodeEnum::Param(_)
            | NodeEnum::Aggref(_)
            | NodeEnum::WindowFunc(_)
            | NodeEnum::WindowFuncRunCondition(_)
            | NodeEnum::SubscriptingRef(_)
            | NodeEnum::FuncExpr(_)
            | NodeEnum::OpExpr(_)
            | NodeEnum::DistinctExpr(_)
            | NodeEnum::NullIfExpr(_)
            | NodeEnum::ScalarArrayOpExpr(_)
            | NodeEnum::SubPlan(_)
            | NodeEnum::AlternativeSubPlan(_)
            | NodeEnum::FieldSelect(_)
            | NodeEnum::FieldStore(_)
            | NodeEnum::RelabelType(_)
            | NodeEnum::CoerceViaIo(_)
            | NodeEnum::ArrayCoerceExpr(_)
            | NodeEnum::ConvertRowtypeExpr(_)
            | NodeEnum::CollateExpr(_)
            | NodeEnum::CaseTestExpr(_)
            | NodeEnum::ArrayExpr(_)
            | NodeEnum::RowCompareExpr(_)
            | NodeEnum::JsonConstructorExpr(_)
            | NodeEnum::JsonExpr(_)
            | NodeEnum::JsonTablePath(_)
            | NodeEnum::JsonTablePathScan(_)
            | NodeEnum::JsonTableSiblingJoin(_)
            | NodeEnum::MergeAction(_)
            | NodeEnum::CoerceToDomain(_)
            | NodeEnum::CoerceToDomainValue(_)
            | NodeEnum::NextValueExpr(_)
            | NodeEnum::InferenceElem(_)
            | NodeEnum::ReturningExpr(_)
            | NodeEnum::TargetEntry(_)
            | NodeEnum::RangeTblRef(_)
            | NodeEnum::FromExpr(_)
            | NodeEnum::OnConflictExpr(_)
            | NodeEnum::Query(_)
            | NodeEnum::RangeTblEntry(_)
            | NodeEnum::RtepermissionInfo(_)
            | NodeEnum::RangeTblFunction(_)
            | NodeEnum::TableSampleClause(_)
            | NodeEnum::WithCheckOption(_)
            | NodeEnum::SortGroupClause(_)
            | NodeEnum::WindowClause(_)
            | NodeEnum::RowMarkClause(_)
            | NodeEnum::SetOperationStmt(_)
            | NodeEnum::PlassignStmt(_)
            | NodeEnum::InlineCodeBlock(_)
            | NodeEnum::CallContext(_) => self.not_understood("an internal node"),
        }
    }

    fn constant(&mut self, constant: &AConst) {
        match constant.val.as_ref() {
            Some(Val::Sval(string)) => self.text(&string.sval),
            Some(Val::Ival(_)) => integer_met(constant.location),
            _ => {}
        }
    }

    fn text(&mut self, text: &str) {
        if is_connection_string(text) {
            self.found.flags.password = true;
        }
    }

    fn column_ref(&mut self, column: &ColumnRef) -> Walk {
        let star = column.fields.last().is_some_and(|field| matches!(field.node, Some(NodeEnum::AStar(_))));
        let named = column.fields.len() - usize::from(star);
        let name = self.strings(column.fields.get(..named).unwrap_or_default())?;
        self.column(name, star);
        Ok(())
    }

    fn operator_expression(&mut self, expression: &AExpr) -> Walk {
        match expression.kind() {
            // The name is the keyword; the server takes these (`transformAExprBetween`).
            AExprKind::AexprBetween | AExprKind::AexprBetweenSym => self.implied_operators(&[">=", "<="]),
            AExprKind::AexprNotBetween | AExprKind::AexprNotBetweenSym => self.implied_operators(&["<", ">"]),
            AExprKind::AexprOp
            | AExprKind::AexprOpAny
            | AExprKind::AexprOpAll
            | AExprKind::AexprDistinct
            | AExprKind::AexprNotDistinct
            | AExprKind::AexprNullif
            | AExprKind::AexprIn
            | AExprKind::AexprLike
            | AExprKind::AexprIlike
            | AExprKind::AexprSimilar => self.operator(&expression.name)?,
            AExprKind::Undefined => return self.not_understood("an operator"),
        }
        self.maybe(expression.lexpr.as_deref())?;
        self.maybe(expression.rexpr.as_deref())
    }

    pub(super) fn call(&mut self, call: &FuncCall) -> Walk {
        let parts = self.strings(&call.funcname)?;
        let window = call.over.is_some();
        self.function(&parts, call.args.len(), FunctionRole::Call, call.func_variadic, window)?;
        if parts.last().is_some_and(|name| name == "set_config") {
            self.set_config(&call.args);
        }
        self.each(&call.args)?;
        if call.agg_within_group {
            // `mode() WITHIN GROUP (ORDER BY x)` returns an x.
            self.each(&call.agg_order)?;
        } else {
            self.at_place(Place::Order, |walker| walker.each(&call.agg_order))?;
        }
        self.at_place(Place::Filter, |walker| walker.maybe(call.agg_filter.as_deref()))?;
        call.over.as_deref().map_or(Ok(()), |window| self.window(window))
    }

    fn set_config(&mut self, arguments: &[Node]) {
        self.writes();
        // Named notation may stand in any order: then nothing is known.
        let named = arguments.iter().any(|node| matches!(node.node, Some(NodeEnum::NamedArgExpr(_))));
        let argument = |index: usize| arguments.get(index).filter(|_| !named).and_then(names::constant);
        let scope = match argument(2).as_deref() {
            Some("true" | "t" | "on" | "1" | "yes") => SettingScope::Local,
            Some("false" | "f" | "off" | "0" | "no") => SettingScope::Session,
            _ => SettingScope::Unknown,
        };
        let value = argument(1);
        let kind = if value.is_some() { SettingKind::Set } else { SettingKind::Computed };
        let name = argument(0).map(|name| name.to_ascii_lowercase());
        self.found.settings.push(SettingChange { name, value, kind, scope });
    }

    fn sub_link(&mut self, link: &SubLink) -> Walk {
        if link.sub_link_type() == SubLinkType::AnySublink && link.oper_name.is_empty() {
            // `x IN (SELECT ...)` (`transformSubLink`).
            self.implied_operators(&["="]);
        }
        self.operator(&link.oper_name)?;
        self.maybe(link.testexpr.as_deref())?;
        let outputs = self.subquery(link.subselect.as_deref())?;
        if link.sub_link_type() != SubLinkType::ExistsSublink {
            // What it yields goes into the expression around it.
            self.mark(outputs.iter(), self.place);
        }
        Ok(())
    }

    fn case(&mut self, case: &CaseExpr) -> Walk {
        if case.arg.is_some() {
            self.implied_operators(&["="]);
        }
        self.maybe(case.arg.as_deref())?;
        self.each(&case.args)?;
        self.maybe(case.defresult.as_deref())
    }

    /// Subscripts and fields behind an expression or an assigned column.
    pub(super) fn indirection(&mut self, parts: &[Node]) -> Walk {
        for part in parts {
            match part.node.as_ref() {
                Some(NodeEnum::String(field)) => {
                    self.spend(self.found.fields.len());
                    names::extend_new(&mut self.found.fields, std::slice::from_ref(&field.sval));
                }
                _ => self.node(part)?,
            }
        }
        Ok(())
    }

    pub(super) fn sort(&mut self, sort: &SortBy) -> Walk {
        self.operator(&sort.use_op)?;
        self.maybe(sort.node.as_deref())
    }

    pub(super) fn window(&mut self, window: &WindowDef) -> Walk {
        self.at_place(Place::Order, |walker| {
            walker.each(&window.partition_clause)?;
            walker.each(&window.order_clause)?;
            walker.maybe(window.start_offset.as_deref())?;
            walker.maybe(window.end_offset.as_deref())
        })
    }

    pub(super) fn json_value(&mut self, value: Option<&JsonValueExpr>) -> Walk {
        let Some(value) = value else { return Ok(()) };
        self.maybe(value.raw_expr.as_deref())?;
        self.maybe(value.formatted_expr.as_deref())
    }

    pub(super) fn json_behavior(&mut self, behavior: Option<&JsonBehavior>) -> Walk {
        behavior.map_or(Ok(()), |behavior| self.maybe(behavior.expr.as_deref()))
    }

    fn json_output(&mut self, output: Option<&JsonOutput>) -> Walk {
        output.map_or(Ok(()), |output| self.type_name(output.type_name.as_ref()))
    }

    fn json_function(&mut self, call: &JsonFuncExpr) -> Walk {
        self.json_value(call.context_item.as_deref())?;
        self.maybe(call.pathspec.as_deref())?;
        self.each(&call.passing)?;
        self.json_output(call.output.as_ref())?;
        self.json_behavior(call.on_empty.as_deref())?;
        self.json_behavior(call.on_error.as_deref())
    }

    fn json_table(&mut self, table: &JsonTable) -> Walk {
        let ((), inputs) = self.capture(|walker| walker.json_table_parts(table))?;
        self.function_source(table.alias.as_ref(), Some("json_table".to_owned()), &inputs);
        Ok(())
    }

    fn json_table_parts(&mut self, table: &JsonTable) -> Walk {
        self.json_value(table.context_item.as_deref())?;
        if let Some(path) = table.pathspec.as_deref() {
            self.maybe(path.string.as_deref())?;
        }
        self.each(&table.passing)?;
        self.each(&table.columns)?;
        self.json_behavior(table.on_error.as_deref())
    }

    fn json_table_column(&mut self, column: &JsonTableColumn) -> Walk {
        self.type_name(column.type_name.as_ref())?;
        if let Some(path) = column.pathspec.as_deref() {
            self.maybe(path.string.as_deref())?;
        }
        self.each(&column.columns)?;
        self.json_behavior(column.on_empty.as_deref())?;
        self.json_behavior(column.on_error.as_deref())
    }

    fn json_pair(&mut self, pair: Option<&JsonKeyValue>) -> Walk {
        let Some(pair) = pair else { return Ok(()) };
        self.maybe(pair.key.as_deref())?;
        self.json_value(pair.value.as_deref())
    }

    fn json_aggregate(&mut self, aggregate: Option<&JsonAggConstructor>) -> Walk {
        let Some(aggregate) = aggregate else { return Ok(()) };
        self.json_output(aggregate.output.as_ref())?;
        self.at_place(Place::Filter, |walker| walker.maybe(aggregate.agg_filter.as_deref()))?;
        self.at_place(Place::Order, |walker| walker.each(&aggregate.agg_order))?;
        aggregate.over.as_deref().map_or(Ok(()), |window| self.window(window))
    }
}

#!/usr/bin/env python3
"""Writes src/sql/nodes.def from the headers of the PostgreSQL server.

Usage: gen-sql-nodes.py [include directory] (default: what tools/pg-include prints).
For every node that PostgreSQL's grammar can produce: all its fields that point to other nodes, so
that the walker of src/sql cannot forget one. The list of node names below is by hand; the fields
never are. A node that is not listed is unknown to the walker, hence opaque.
"""
import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))

# Names of structs; leaves (Integer … A_Star) have no fields and are listed too.
EXPRESSIONS = """
    Integer Float Boolean String BitString List A_Const A_Star ParamRef ColumnRef A_Expr TypeCast
    TypeName CollateClause FuncCall NamedArgExpr A_Indices A_Indirection A_ArrayExpr ResTarget
    MultiAssignRef SortBy WindowDef BoolExpr SubLink CaseExpr CaseWhen RowExpr CoalesceExpr MinMaxExpr
    SQLValueFunction XmlExpr XmlSerialize NullTest BooleanTest GroupingFunc GroupingSet SetToDefault
    CurrentOfExpr Alias RangeVar RangeSubselect RangeFunction RangeTableFunc RangeTableFuncCol
    RangeTableSample JoinExpr LockingClause WithClause CommonTableExpr CTESearchClause
    CTECycleClause IntoClause OnConflictClause InferClause MergeWhenClause RoleSpec
"""
DEFINITIONS = """
    ColumnDef Constraint DefElem IndexElem TableLikeClause PartitionElem PartitionSpec
    PartitionBoundSpec PartitionRangeDatum PartitionCmd AlterTableCmd ReplicaIdentityStmt StatsElem
    AccessPriv ObjectWithArgs FunctionParameter TriggerTransition VacuumRelation
    PublicationObjSpec PublicationTable CreateOpClassItem ReturnStmt
"""
STATEMENTS = """
    SelectStmt InsertStmt UpdateStmt DeleteStmt MergeStmt
    AlterCollationStmt AlterDatabaseRefreshCollStmt AlterDatabaseSetStmt AlterDatabaseStmt
    AlterDefaultPrivilegesStmt AlterDomainStmt AlterEnumStmt AlterEventTrigStmt
    AlterExtensionContentsStmt AlterExtensionStmt AlterFdwStmt AlterForeignServerStmt
    AlterFunctionStmt AlterObjectDependsStmt AlterObjectSchemaStmt AlterOperatorStmt
    AlterOpFamilyStmt AlterOwnerStmt AlterPolicyStmt AlterPublicationStmt AlterRoleSetStmt
    AlterRoleStmt AlterSeqStmt AlterStatsStmt AlterSubscriptionStmt AlterSystemStmt
    AlterTableMoveAllStmt AlterTableSpaceOptionsStmt AlterTableStmt AlterTSConfigurationStmt
    AlterTSDictionaryStmt AlterTypeStmt AlterUserMappingStmt CallStmt CheckPointStmt
    ClosePortalStmt ClusterStmt CommentStmt CompositeTypeStmt ConstraintsSetStmt CopyStmt
    CreateAmStmt CreateCastStmt CreateConversionStmt CreatedbStmt CreateDomainStmt CreateEnumStmt
    CreateEventTrigStmt CreateExtensionStmt CreateFdwStmt CreateForeignServerStmt
    CreateForeignTableStmt CreateFunctionStmt CreateOpClassStmt CreateOpFamilyStmt
    CreatePLangStmt CreatePolicyStmt CreatePublicationStmt CreateRangeStmt CreateRoleStmt
    CreateSchemaStmt CreateSeqStmt CreateStatsStmt CreateStmt CreateSubscriptionStmt
    CreateTableAsStmt CreateTableSpaceStmt CreateTransformStmt CreateTrigStmt
    CreateUserMappingStmt DeallocateStmt DeclareCursorStmt DefineStmt DiscardStmt DoStmt
    DropdbStmt DropOwnedStmt DropRoleStmt DropStmt DropSubscriptionStmt DropTableSpaceStmt
    DropUserMappingStmt ExecuteStmt ExplainStmt FetchStmt GrantRoleStmt GrantStmt
    ImportForeignSchemaStmt IndexStmt ListenStmt LoadStmt LockStmt NotifyStmt PrepareStmt
    ReassignOwnedStmt RefreshMatViewStmt ReindexStmt RenameStmt RuleStmt SecLabelStmt
    TransactionStmt TruncateStmt UnlistenStmt VacuumStmt VariableSetStmt VariableShowStmt
    ViewStmt
"""
# Pointers to what is no node of the raw tree.
NOT_NODES = {"char", "void", "Bitmapset", "uint8", "FuncExpr"}


def structs(include):
    text = ""
    for name in ("parsenodes.h", "primnodes.h", "value.h", "pg_list.h"):
        with open(os.path.join(include, "nodes", name), encoding="utf-8") as f:
            text += f.read()
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    found = {}
    for m in re.finditer(r"\bstruct\s+(\w+)\s*\{(.*?)\n\}", text, flags=re.S):
        found.setdefault(m.group(1), m.group(2))
    return found


def fields(name, found, prefix=""):
    out = []
    for line in found[name].split(";"):
        m = re.match(r"\s*(?:const\s+)?(?:struct\s+)?(\w+)\s*(\**)\s*(\w+)\s*$", line)
        if m is None:
            continue
        kind, stars, field = m.groups()
        if stars == "*" and kind not in NOT_NODES:
            out.append(prefix + field)
        elif not stars and kind in found and kind == "CreateStmt":
            out += fields(kind, found, prefix + field + ".")
    return out


def main():
    include = sys.argv[1] if len(sys.argv) > 1 else subprocess.run(
        [os.path.join(HERE, "pg-include")], check=True, capture_output=True,
        text=True).stdout.strip()
    found = structs(include)
    lines = []
    for group in (EXPRESSIONS, DEFINITIONS, STATEMENTS):
        for name in group.split():
            if name not in found:
                sys.exit("no struct " + name)
            inner = [] if name in ("A_Const", "List") else fields(name, found)
            lines.append("CS_SQL_NODE(%s%s)" % (
                name, "".join(", CS_F(%s, %s)" % (name, f) for f in inner)))
    with open(os.path.join(HERE, "..", "src", "sql", "nodes.def"), "w", encoding="ascii") as f:
        f.write("/* The nodes that the grammar produces, with every field that points to nodes: what\n"
                " * the walker visits. CS_SQL_NODE(struct, CS_F(struct, field) …)\n"
                " * Written by tools/gen-sql-nodes.py from PostgreSQL 15's headers; not edited by "
                "hand. */\n/* clang-format off */\n".replace("…", "..."))
        f.writelines(line + "\n" for line in lines)
        f.write("/* clang-format on */\n")


main()

"""What conditions, orders and computations depend on, by the server's analysed tree (PostgreSQL source, nodes/outfuncs.c).

Names are long resolved there: a column is a number of a range table's entry. Nothing of the gateway's analysis is used.
"""

import re

TOKEN = re.compile(r"[(){}]|(?:\\.|[^\s(){}\\])+", re.DOTALL)
# RTEKind (nodes/parsenodes.h).
RELATION, SUBQUERY, JOIN, FUNCTION, TABLEFUNC, VALUES, CTE = range(7)
# SubLinkType (nodes/primnodes.h): EXISTS shows nothing of its outputs.
EXISTS = 0
# Longest chain of columns followed from query to query: recursive queries come back to themselves.
MAX_DEPTH = 40


def read(text):
    """A tree as dictionaries (the node's name is under ``), lists, and words."""
    tokens, at = TOKEN.findall(text), 0

    def value():
        nonlocal at
        token = tokens[at]
        at += 1
        if token == "{":
            node = {"": tokens[at]}
            at += 1
            field = None
            while tokens[at] != "}":
                word = tokens[at]
                if word.startswith(":") and len(word) > 1:
                    field = word[1:]
                    node[field] = None
                    at += 1
                else:
                    # Of a constant's bytes, which are many words, the last.
                    node[field] = value()
            at += 1
            return node
        if token == "(":
            items = []
            while tokens[at] != ")":
                items.append(value())
            at += 1
            return items
        return token

    return value()


def nodes(found):
    """Every node of an expression, not of the queries in it."""
    if isinstance(found, list):
        for item in found:
            yield from nodes(item)
    elif isinstance(found, dict):
        yield found
        if found[""] != "QUERY":
            for field, item in found.items():
                if field:
                    yield from nodes(item)


def listed(found):
    return found if isinstance(found, list) else []


def integers(found):
    """`(i 1 2)`."""
    return [int(word) for word in listed(found)[1:]]


class Columns:
    """The columns `(relation's oid, number)` that a tree's conditions, orders and computations depend on; 0 is the whole row."""

    def __init__(self):
        self.filter, self.order, self.compute = set(), set(), set()

    def take(self, text):
        self.inside(read(text), [])

    def inside(self, found, above):
        """Finds the outermost queries: a utility command has them somewhere below."""
        if isinstance(found, list):
            for item in found:
                self.inside(item, above)
        elif isinstance(found, dict):
            if found[""] == "QUERY" and found.get("commandType") != "6":
                self.query(found, above)
            else:
                for field, item in found.items():
                    if field:
                        self.inside(item, above)

    def query(self, query, above):
        stack = [*above, query]
        for entry in listed(query.get("rtable")):
            if entry.get("rtekind") == str(SUBQUERY):
                self.query(entry["subquery"], stack)
            elif entry.get("rtekind") in (str(FUNCTION), str(TABLEFUNC)):
                self.filter |= self.depends([entry.get("functions"), entry.get("tablefunc")], stack)
        for cte in listed(query.get("cteList")):
            self.query(cte["ctequery"], stack)
        for field in ("jointree", "havingQual", "limitOffset", "limitCount", "onConflict", "mergeActionList"):
            self.conditions(query.get(field), stack)
        targets = [*listed(query.get("targetList")), *listed(query.get("returningList"))]
        self.ordered(query, stack)
        for target in targets:
            # What is there to sort by alone is an order.
            if target.get("resjunk") == "false":
                self.computed(target["expr"], stack)
        for sublink in self.queries_in([query.get(f) for f in query if f not in ("rtable", "cteList", "")]):
            self.query(sublink, stack)

    @staticmethod
    def queries_in(found):
        return [node for node in nodes(found) if node[""] == "QUERY"]

    def conditions(self, found, stack):
        """Of join trees and the like, what stands in their conditions."""
        for node in nodes(found):
            if node[""] in ("FROMEXPR", "JOINEXPR"):
                self.filter |= self.depends(node.get("quals"), stack)
            elif node[""] == "MERGEACTION":
                self.filter |= self.depends(node.get("qual"), stack)
                for target in listed(node.get("targetList")):
                    self.computed(target["expr"], stack)
            elif node[""] == "ONCONFLICTEXPR":
                self.filter |= self.depends([node.get("arbiterWhere"), node.get("onConflictWhere")], stack)
                for target in listed(node.get("onConflictSet")):
                    self.computed(target["expr"], stack)
        if isinstance(found, dict) and found[""] not in ("FROMEXPR", "ONCONFLICTEXPR"):
            self.filter |= self.depends(found, stack)

    def ordered(self, query, stack):
        targets = {target.get("ressortgroupref"): target["expr"] for target in listed(query.get("targetList"))}
        clauses = [query.get("sortClause"), query.get("groupClause"), query.get("distinctClause")]
        windows = listed(query.get("windowClause"))
        clauses += [window.get(field) for window in windows for field in ("partitionClause", "orderClause")]
        for clause in clauses:
            for item in listed(clause):
                self.order |= self.depends(targets.get(item.get("tleSortGroupRef")), stack)
        for node in nodes(query.get("setOperations")):
            if node[""] == "SETOPERATIONSTMT" and node.get("all") == "false":
                for branch in nodes(node):
                    if branch[""] == "RANGETBLREF":
                        entry = query["rtable"][int(branch["rtindex"]) - 1]
                        for target in listed(entry.get("subquery", {}).get("targetList")):
                            if target.get("resjunk") == "false":
                                self.order |= self.depends(target["expr"], [*stack, entry["subquery"]])

    def computed(self, expression, stack):
        """A column that is shown as it is, is not."""
        if isinstance(expression, dict) and expression[""] not in ("VAR", "QUERY"):
            if expression[""] == "RELABELTYPE":
                return self.computed(expression.get("arg"), stack)
            self.compute |= self.depends(expression, stack)

    def depends(self, expression, stack, depth=0):
        found = set()
        for node in nodes(expression):
            if node[""] == "VAR":
                found |= self.variable(node, stack, depth)
            elif node[""] == "SUBLINK" and node.get("subLinkType") != str(EXISTS):
                for target in listed(node["subselect"].get("targetList")):
                    found |= self.depends(target["expr"], [*stack, node["subselect"]], depth)
        return found

    def variable(self, variable, stack, depth):
        up, number, attribute = (int(variable[field]) for field in ("varlevelsup", "varno", "varattno"))
        stack = stack[: len(stack) - up]
        if depth > MAX_DEPTH or not stack:
            return set()
        entries = listed(stack[-1].get("rtable"))
        if not 0 < number <= len(entries):
            # `excluded` and the planner's own.
            return set()
        entry = entries[number - 1]
        kind = int(entry["rtekind"])
        if kind == RELATION:
            return {(int(entry["relid"]), attribute)} if attribute >= 0 else set()
        if kind == SUBQUERY:
            return self.output(entry["subquery"], stack, attribute, depth)
        if kind == JOIN:
            joined = listed(entry.get("joinaliasvars"))
            return self.depends(joined[attribute - 1] if attribute else joined, stack, depth + 1)
        if kind == VALUES:
            return self.depends(entry.get("values_lists"), stack, depth + 1)
        if kind in (FUNCTION, TABLEFUNC):
            return self.depends([entry.get("functions"), entry.get("tablefunc")], stack, depth + 1)
        if kind == CTE:
            levels = int(entry["ctelevelsup"])
            above = stack[: len(stack) - levels]
            for cte in listed(above[-1].get("cteList")) if above else ():
                if cte.get("ctename") == entry.get("ctename"):
                    return self.output(cte["ctequery"], above, attribute, depth)
        return set()

    def output(self, query, stack, attribute, depth):
        returned = query.get("returningList") if query.get("commandType") != "1" else query.get("targetList")
        found = set()
        for target in listed(returned):
            if target.get("resjunk") == "false" and attribute in (0, int(target["resno"])):
                found |= self.depends(target["expr"], [*stack, query], depth + 1)
        # A set operation's outputs are those of its branches.
        if query.get("setOperations") not in (None, "<>"):
            for node in nodes(query["setOperations"]):
                if node[""] == "RANGETBLREF":
                    entry = query["rtable"][int(node["rtindex"]) - 1]
                    if "subquery" in entry:
                        found |= self.output(entry["subquery"], [*stack, query], attribute, depth + 1)
        return found

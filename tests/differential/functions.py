"""Every function of pg_catalog, called with arguments of its types: the list of those that may be called
(src/sql/functions.def) is checked against what they do."""

VALUES = {
    "int2": ["1::int2"], "int4": ["1", "0", "77"], "int8": ["1::int8", "77::int8"], "text": ["'x'", "'public.hits'", "'select public.bump()'", "'plain'"], "varchar": ["'x'::varchar"],
    "bpchar": ["'x'::bpchar"], "name": ["'plain'::name", "'seq'::name"], "cstring": ["'1'::cstring", "'plain'::cstring", "'{1}'::cstring"], "bool": ["true", "false"], "numeric": ["1.5"],
    "float4": ["1.5::float4"], "float8": ["0.5::float8"], "oid": ["'plain'::regclass::oid", "'bump'::regproc::oid", "'seq'::regclass::oid", "1::oid", "23::oid"],
    "regclass": ["'seq'::regclass", "'plain'::regclass", "'plain_pkey'::regclass"], "regproc": ["'bump'::regproc"], "regprocedure": ["'bump()'::regprocedure"], "regtype": ["'int4'::regtype"],
    "regnamespace": ["'public'::regnamespace"], "regrole": ["'boss'::regrole"], "regoper": ["'!~'::regoper"], "regoperator": ["'+(int4,int4)'::regoperator"], "regconfig": ["'english'::regconfig"],
    "regdictionary": ["'simple'::regdictionary"], "regcollation": ["'\"C\"'::regcollation"], "date": ["date '2020-01-01'"], "time": ["time '12:00'"], "timetz": ["timetz '12:00+00'"],
    "timestamp": ["timestamp '2020-01-01'"], "timestamptz": ["timestamptz '2020-01-01 00:00+00'"], "interval": ["interval '1 ms'"], "json": ["'{\"a\":1}'::json"], "jsonb": ["'{\"a\":1}'::jsonb"],
    "jsonpath": ["'$.a'::jsonpath"], "xml": ["'<a/>'::xml"], "bytea": ["'\\x00'::bytea"], "bit": ["B'1'"], "varbit": ["B'1'::varbit"], "char": ["'r'::\"char\""], "inet": ["'10.0.0.1'::inet"],
    "cidr": ["'10.0.0.0/8'::cidr"], "macaddr": ["'08:00:2b:01:02:03'::macaddr"], "macaddr8": ["'08:00:2b:01:02:03:04:05'::macaddr8"], "uuid": ["gen_random_uuid()"], "money": ["1::money"],
    "point": ["'(1,1)'::point"], "box": ["'(1,1),(2,2)'::box"], "lseg": ["'[(1,1),(2,2)]'::lseg"], "line": ["'{1,2,3}'::line"], "path": ["'[(1,1),(2,2)]'::path"], "polygon": ["'((1,1),(2,2))'::polygon"],
    "circle": ["'<(1,1),2>'::circle"], "tsvector": ["'a b'::tsvector"], "tsquery": ["'a'::tsquery"], "pg_lsn": ["'0/0'::pg_lsn", "pg_current_wal_lsn()"], "tid": ["'(0,1)'::tid"], "xid": ["'3'::xid"],
    "xid8": ["'3'::xid8"], "cid": ["'0'::cid"], "txid_snapshot": ["txid_current_snapshot()"], "pg_snapshot": ["pg_current_snapshot()"], "refcursor": ["'c'::refcursor"], "aclitem": ["'boss=r/boss'::aclitem"],
    "int2vector": ["'1 2'::int2vector"], "oidvector": ["'1 2'::oidvector"], "anyelement": ["1"], "anynonarray": ["1"], "anycompatible": ["1"], "anycompatiblenonarray": ["1"], "anyarray": ["array[1,2]"],
    "anycompatiblearray": ["array[1,2]"], "anyrange": ["'[1,5)'::int4range"], "anycompatiblerange": ["'[1,5)'::int4range"], "anymultirange": ["'{[1,5)}'::int4multirange"],
    "anycompatiblemultirange": ["'{[1,5)}'::int4multirange"], "record": ["row(1, 'a')"], "_record": ["array[row(1, 2)]"], "any": ["1", "'x'::text"], "void": [], "anyenum": [], "pg_node_tree": [],
    "_text": ["array['x']", "array['a','b']"], "_int4": ["array[1,2]"], "_int8": ["array[1::int8]"], "_oid": ["array[1::oid]"], "_float8": ["array[0.5::float8]"], "_bool": ["array[true]"],
    "_cstring": ["array['1'::cstring]"], "_name": ["array['a'::name]"], "_char": ["array['r'::\"char\"]"], "_aclitem": ["array['boss=r/boss'::aclitem]"], "_int2": ["array[1::int2]"], "_numeric": ["array[1.5]"],
    "_regtype": ["array['int4'::regtype]"], "_timestamptz": ["array[now()]"], "_float4": ["array[0.5::float4]"]}

LIST = """select p.proname, p.provolatile = 'v', p.prokind, array(select t.typname from unnest(p.proargtypes) with ordinality a (o, i) join pg_type t on t.oid = a.o order by a.i)::text[]
 from pg_proc p where p.pronamespace = 'pg_catalog'::regnamespace and p.prokind in ('f', 'a') and p.oid < 16384 order by p.proname, p.oid"""
AT_MOST = 4  # sets of arguments for one function


def calls(rows):
    """(text, name, volatile) for every function of which all types of arguments are known; and how many were not."""
    texts, unknown = [], []
    for name, volatile, _, args in rows:
        choices = [VALUES.get(a, ["'%s'::%s" % ("a", a)] if a.startswith("reg") else []) for a in args]
        if any(not c for c in choices):
            unknown.append(name)
            continue
        for i in range(min(AT_MOST, max([len(c) for c in choices] or [1]))):
            texts.append(("select pg_catalog.\"%s\"(%s)" % (name, ", ".join(c[i % len(c)] for c in choices)), name, volatile))
    return texts, unknown

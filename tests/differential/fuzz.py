#!/usr/bin/env python3
"""`make fuzz-server SECONDS=…`: new texts in new databases until the time is over or something was found. Stops with
the seed and the shortest text that is called session and read only and changes something; keeps it in seeds/."""
import argparse
import json
import os
import random
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
HERE = os.path.dirname(os.path.abspath(__file__))
ENCODINGS = [None, None, None, "LATIN1", "SQL_ASCII", "EUC_JP", "WIN1252", "EUC_KR", "LATIN9", "KOI8R"]
BATCH, ROUND = 100, 1500


class Count:
    texts = harmless = ran = 0


def make_world(pg, facts, rng, name):
    import differential
    from world import TRAPS
    encoding = rng.choice(ENCODINGS)
    if encoding:
        traps = [t for t in TRAPS if t.ddl.isascii() and "contrib" not in t.name and rng.random() < 0.1]
        traps += [t for t in TRAPS if t.name == "latin-names" and encoding in ("LATIN1", "LATIN9", "WIN1252")]
    else:
        traps = rng.sample([t for t in TRAPS if not t.name.startswith("latin")], rng.choice((0, 1, 2, 3)))
    return differential.World(pg, facts, traps, name, encoding=encoding), encoding


def texts_of(rng, world, n):
    import generate
    import texts
    with world.admin.cursor() as cur:
        cur.execute(texts.CALLABLE)
        rows = cur.fetchall()
    lines = [x for t in world.traps for x in t.texts]
    grammar = texts.Grammar(rows, lines)
    contexts = [x for t in world.traps for x in generate.all_of(t)]
    for _ in range(n):
        how = rng.random()
        if how < 0.45:
            t = texts.lexical(rng)
        elif how < 0.9 or not contexts:
            t = grammar.statement(rng)
        else:
            t = texts.spaced(rng, rng.choice(contexts)) + rng.choice(("", "; " + grammar.statement(rng)))
        yield world.fill(t)


def one_round(pg, facts, seed, n=ROUND, end=None):
    """(text, what it moved) of the first that is found, or None."""
    rng = random.Random(seed)
    world, encoding = make_world(pg, facts, rng, "fuzz_%d" % (seed % 1000003))
    try:
        batch, how = [], {}
        for t in texts_of(rng, world, n):
            Count.texts += 1
            if facts.of(t).harmless:
                Count.harmless += 1
                extended = rng.random() < 0.2
                batch.append((t, {"extended": True} if extended else how))
            if len(batch) >= BATCH:
                found = try_batch(world, batch)
                if found:
                    return found, world, encoding
                batch = []
                if end is not None and time.monotonic() > end:
                    return None, world, encoding
        return try_batch(world, batch), world, encoding
    finally:
        world.drop()


def try_batch(world, batch):
    import differential
    found = world.search(batch, most=1)
    Count.ran += len(batch)
    if not found:
        return None
    text, moved = found[0]
    how = next((h for t, h in batch if t == text), {})
    return differential.minimal(world, text, how), how, moved


# Which characters become bytes of ASCII in an encoding that a server may have: there a quote could come out of none.
ASCII = """do $do$ declare e text; c int; b bytea; begin
 foreach e in array array['EUC_JP','EUC_CN','EUC_KR','EUC_TW','EUC_JIS_2004','LATIN1','LATIN2','LATIN3','LATIN4','LATIN5','LATIN6','LATIN7','LATIN8','LATIN9','LATIN10',
  'ISO_8859_5','ISO_8859_6','ISO_8859_7','ISO_8859_8','WIN1250','WIN1251','WIN1252','WIN1253','WIN1254','WIN1255','WIN1256','WIN1257','WIN1258','WIN866','WIN874','KOI8R','KOI8U'] loop
  for c in 128..65533 loop continue when c between 55296 and 57343; begin
   b := convert(convert_to(chr(c), 'UTF8'), 'UTF8', e);
   for i in 0..length(b) - 1 loop if get_byte(b, i) < 128 then raise exception 'U+% is ASCII in %: %', to_hex(c), e, b using errcode = 'P0009'; end if; end loop;
  exception when untranslatable_character or character_not_in_repertoire or undefined_function then null; end; end loop; end loop; end $do$"""


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--build", default="build")
    a.add_argument("--seconds", type=float, default=60)
    a.add_argument("--seed", type=int, default=None)
    args = a.parse_args()
    os.environ["COUNTERSIGN_BUILD"] = os.path.abspath(args.build)
    import differential
    pg = differential.scratch_server()
    facts = differential.Facts()
    end = time.monotonic() + args.seconds
    seed = args.seed if args.seed is not None else random.SystemRandom().randrange(1 << 31)
    try:
        rounds = 0
        if args.seed is None and args.seconds >= 300:
            pg.sql(ASCII)
        while rounds == 0 or (args.seed is None and time.monotonic() < end):
            found, world, encoding = one_round(pg, facts, seed, end=None if args.seed is not None else end)
            rounds += 1
            if found:
                text, how, moved = found
                seen = {"seed": seed, "traps": [t.name for t in world.traps], "encoding": encoding, "text": text.decode("utf-8", "surrogateescape"), "how": how}
                print("FOUND: %r\n  called %s, moved %s\n  %s" % (text, facts.of(text), "; ".join(moved), json.dumps(seen)), flush=True)
                with open(os.path.join(HERE, "seeds", "%d.json" % seed), "w") as f:
                    json.dump(seen, f, indent=1)
                    f.write("\n")
                return 1
            seed = random.Random(seed).randrange(1 << 31)
        print("%d texts in %d databases, %d of them called session and read only and run: nothing changed" % (Count.texts, rounds, Count.ran))
        return 0
    finally:
        facts.close()
        pg.destroy()


if __name__ == "__main__":
    sys.exit(main())

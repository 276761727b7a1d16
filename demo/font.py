#!/usr/bin/env python3
"""Draws demo/site/strata.woff2: a small display font of our own, five by seven blocks a letter.

Needs fontTools and brotli (pip install fonttools brotli). The result is committed, so only
whoever changes a letter has to run this. Running it again gives identical bytes.
"""
import pathlib

from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen

# One letter a line: seven rows of five blocks, top row first, `#` is ink.
LETTERS = """
A .###. #...# #...# ##### #...# #...# #...#
B ####. #...# #...# ####. #...# #...# ####.
C .###. #...# #.... #.... #.... #...# .###.
D ####. #...# #...# #...# #...# #...# ####.
E ##### #.... #.... ####. #.... #.... #####
F ##### #.... #.... ####. #.... #.... #....
G .###. #...# #.... #.### #...# #...# .####
H #...# #...# #...# ##### #...# #...# #...#
I .###. ..#.. ..#.. ..#.. ..#.. ..#.. .###.
J ..### ...#. ...#. ...#. ...#. #..#. .##..
K #...# #..#. #.#.. ##... #.#.. #..#. #...#
L #.... #.... #.... #.... #.... #.... #####
M #...# ##.## #.#.# #.#.# #...# #...# #...#
N #...# ##..# #.#.# #..## #...# #...# #...#
O .###. #...# #...# #...# #...# #...# .###.
P ####. #...# #...# ####. #.... #.... #....
Q .###. #...# #...# #...# #.#.# #..#. .##.#
R ####. #...# #...# ####. #.#.. #..#. #...#
S .#### #.... #.... .###. ....# ....# ####.
T ##### ..#.. ..#.. ..#.. ..#.. ..#.. ..#..
U #...# #...# #...# #...# #...# #...# .###.
V #...# #...# #...# #...# #...# .#.#. ..#..
W #...# #...# #...# #.#.# #.#.# ##.## #...#
X #...# #...# .#.#. ..#.. .#.#. #...# #...#
Y #...# #...# .#.#. ..#.. ..#.. ..#.. ..#..
Z ##### ....# ...#. ..#.. .#... #.... #####
0 .###. #...# #..## #.#.# ##..# #...# .###.
1 ..#.. .##.. ..#.. ..#.. ..#.. ..#.. .###.
2 .###. #...# ....# ..##. .#... #.... #####
3 ####. ....# ....# .###. ....# ....# ####.
4 ...#. ..##. .#.#. #..#. ##### ...#. ...#.
5 ##### #.... ####. ....# ....# #...# .###.
6 .###. #.... #.... ####. #...# #...# .###.
7 ##### ....# ...#. ..#.. .#... .#... .#...
8 .###. #...# #...# .###. #...# #...# .###.
9 .###. #...# #...# .#### ....# ....# .###.
. ..... ..... ..... ..... ..... .##.. .##..
, ..... ..... ..... ..... .##.. ..#.. .#...
: ..... .##.. .##.. ..... .##.. .##.. .....
/ ....# ....# ...#. ..#.. .#... #.... #....
- ..... ..... ..... ##### ..... ..... .....
@ .###. #...# #.### #.#.# #.### #.... .####
! ..#.. ..#.. ..#.. ..#.. ..#.. ..... ..#..
? .###. #...# ....# ..##. ..#.. ..... ..#..
"""
BLOCK = 120  # font units a block
GAP = 10  # of which so many stay empty between two blocks
ADVANCE = 6 * BLOCK


def glyph(rows):
    pen = TTGlyphPen(None)
    for down, row in enumerate(rows):
        for across, ink in enumerate(row):
            if ink == "#":
                left, bottom = across * BLOCK + BLOCK // 2, (6 - down) * BLOCK
                right, top = left + BLOCK - GAP, bottom + BLOCK - GAP
                pen.moveTo((left, bottom))
                pen.lineTo((left, top))
                pen.lineTo((right, top))
                pen.lineTo((right, bottom))
                pen.closePath()
    return pen.glyph()


def main():
    glyphs, cmap = {".notdef": glyph(["#####"] * 7), "space": glyph([])}, {32: "space", 160: "space"}
    for line in LETTERS.strip().splitlines():
        letter, *rows = line.split()
        name = f"u{ord(letter):04X}"
        glyphs[name] = glyph(rows)
        cmap[ord(letter)] = cmap[ord(letter.lower())] = name
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder(list(glyphs))
    font.setupCharacterMap(cmap)
    font.setupGlyf(glyphs)
    font.setupHorizontalMetrics({name: (ADVANCE, BLOCK // 2) for name in glyphs})
    font.setupHorizontalHeader(ascent=900, descent=-160)
    font.setupNameTable({"familyName": "Strata", "styleName": "Regular", "licenseDescription": "Apache-2.0"})
    font.setupOS2(sTypoAscender=900, sTypoDescender=-160, usWinAscent=900, usWinDescent=160, sCapHeight=830)
    font.setupPost(keepGlyphNames=False)
    font.font["head"].created = font.font["head"].modified = 3_782_750_400  # seconds since 1904
    font.font.recalcTimestamp = False
    font.font.flavor = "woff2"
    font.save(pathlib.Path(__file__).parent / "site" / "strata.woff2")


if __name__ == "__main__":
    main()

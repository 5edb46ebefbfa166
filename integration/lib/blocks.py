#!/usr/bin/env python3
"""Takes what a document tells its reader to type, as it stands there.

blocks.py DOCUMENT STORY NAME FOLDER

Between `<!-- played by STORY: NAME -->` and `<!-- end -->` each fenced block becomes FOLDER/NN.sh: a block of `sh` as it
is, a block whose first line is a comment with a path as the file of that path. Prints the names; fails when a
block is neither.
"""
import pathlib
import re
import sys
import textwrap

document, story, name, folder = sys.argv[1:]
text = pathlib.Path(document).read_text()
start = f"<!-- played by {story}: {name} -->\n"
if text.count(start) != 1:
    sys.exit(f"{document}: not once: {start!r}")
part = text.split(start)[1].split("<!-- end -->")[0]
# A block in a list is indented.
part = textwrap.dedent(part)
pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
for number, (kind, block) in enumerate(re.findall(r"^```(\w*)\n(.*?)^```$", part, re.M | re.S), 1):
    path = re.match(r"# (/\S+)\n", block)
    if kind == "sh":
        script = block
    elif path:
        script = f"mkdir -p {pathlib.Path(path[1]).parent}\ncat >{path[1]} <<'END OF BLOCK'\n{block}END OF BLOCK\n"
    else:
        sys.exit(f"{document}: who types this? {block!r}")
    file = pathlib.Path(folder) / f"{number:02}.sh"
    file.write_text(script)
    print(file)

"""A directory of files: types, caching, ranges, precompressed siblings.

$ armature run examples/static_files.py

$ curl -s http://127.0.0.1:8000/static/hello.txt
Hello, file!
$ curl -s -i http://127.0.0.1:8000/static/hello.txt | grep -i -e "^cache-control" -e "^content-type"
content-type: text/plain; charset=utf-8
cache-control: max-age=3600
$ curl -s -r 7-10 http://127.0.0.1:8000/static/hello.txt
file
$ curl -s -i -H "Accept-Encoding: gzip" http://127.0.0.1:8000/static/app.js | grep -a -i "^content-encoding"
content-encoding: gzip
$ curl -s --compressed -H "Accept-Encoding: gzip" http://127.0.0.1:8000/static/app.js | head -n 1
let answer = 42;
$ curl -s -o /dev/null -w "%{http_code}\\n" --path-as-is http://127.0.0.1:8000/static/../secret.txt
404
"""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path

from armature import App, StaticFiles

# A directory of your own would be here; this one lives as long as the program.
temporary = tempfile.TemporaryDirectory()
directory = Path(temporary.name)
(directory / "hello.txt").write_text("Hello, file!\n")
script = "let answer = 42;\n" * 200
(directory / "app.js").write_text(script)
(directory / "app.js.gz").write_bytes(gzip.compress(script.encode()))

app = App()
app.mount("/static", StaticFiles(directory, max_age=3600))

if __name__ == "__main__":
    app.run("127.0.0.1:8000")

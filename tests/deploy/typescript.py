"""Documents held against TypeScript's types: unknown keys, wrong values, missing ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.deploy.tools import CHECKS, node_modules, run


def type_errors(documents: Sequence[tuple[str, Any]], folder: Path) -> str:
    """What the compiler says of documents, each with the type of deploy/checks/types.ts it is to
    satisfy; nothing where all is well."""
    compiler = node_modules() / "typescript" / "bin" / "tsc"
    names = ", ".join(sorted({kind for kind, _ in documents}))
    lines = [f'import type {{ {names} }} from "{CHECKS / "types.ts"}";']
    for number, (kind, document) in enumerate(documents):
        text = json.dumps(document, indent=1)
        lines.append(f"export const document{number} = {text} satisfies {kind};")
    (folder / "documents.ts").write_text("\n".join(lines) + "\n")
    settings = {"extends": str(CHECKS / "tsconfig.json"), "files": ["documents.ts"]}
    (folder / "tsconfig.json").write_text(json.dumps(settings))
    done = run(["node", compiler, "-p", folder, "--pretty", "false"])
    said = done.stdout + done.stderr
    assert (done.returncode == 0) == (said == ""), said
    return said

"""Links lead somewhere, and the command lines that a reader copies are accepted."""

import re
import shlex
from pathlib import Path

import pytest
import typer
import typer.main

from gerbil_tune.cli.app import app
from gerbil_tune.main import parse_arguments

ROOT = Path(__file__).parents[2]
LEFT_BY_RUNS = {
    "demo",
    "studies",
    "mlartifacts",
    "mlruns",
    "build",
    "dist",
    "indices",
    "split",
    "cleaned",
    "shards",
}
LINK = re.compile(r"!?\[[^\]]*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
PROGRAM = re.compile(r"^(?:\$ )?(?:[A-Z_]+=\S+ )*(?:\S*/)?gerbil-tune (.+)$")
GERBILIZER = re.compile(r"^(?:\$ )?(?:\S*/)?python3? -m gerbil_tune\.main (.+)$")
END_OF_COMMAND = {"|", "||", "&&", ";", ">", ">>", "<", "&", "2>", "2>&1"}
UsageError = typer.BadParameter.__mro__[1]


def documents():
    folders = [
        path
        for path in ROOT.iterdir()
        if path.is_dir() and not path.name.startswith(".") and path.name not in LEFT_BY_RUNS
    ]
    found = [*ROOT.glob("*.md"), *(path for folder in folders for path in folder.rglob("*.md"))]
    return sorted(path.relative_to(ROOT) for path in found)


def fenced_blocks(text):
    return re.findall(r"^ *```[^\n]*\n(.*?)^ *```", text, flags=re.MULTILINE | re.DOTALL)


def prose(text):
    """The text without code, in which brackets are no links."""
    text = re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "", text)


def anchors(text):
    """The anchors that GitHub makes of headings."""
    text = re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#{1,6} +(.+?) *#*$", text, flags=re.MULTILINE)
    stated = set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", text))
    return stated | {
        re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    }


def broken_links(path):
    broken = []
    for target in LINK.findall(prose((ROOT / path).read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (ROOT / path).parent / name if name else ROOT / path
        has_anchor = not anchor or file.suffix != ".md" or not file.is_file()
        if not file.exists() or not (has_anchor or anchor in anchors(file.read_text())):
            broken.append(target)
    return broken


def command_lines(text, pattern):
    """The arguments of each call of a program in the fenced blocks."""
    for block in fenced_blocks(text):
        for line in block.replace("\\\n", " ").splitlines():
            found = pattern.match(line.strip())
            if found:
                yield list(up_to_the_end(shlex.split(found[1], comments=True)))


def up_to_the_end(words):
    for word in words:
        if word in END_OF_COMMAND:
            return
        yield word


def parse(arguments):
    """Parse as the program would, without running anything; return the command's name."""
    command, rest, name = typer.main.get_command(app), list(arguments), "gerbil-tune"
    while rest and rest[0] in getattr(command, "commands", {}):
        name = rest.pop(0)
        command = command.commands[name]
    assert not (rest and getattr(command, "commands", None) and not rest[0].startswith("-")), (
        f"{name} has no command {rest[:1]}"
    )
    try:
        context = command.make_context(name, rest)
    except typer.Exit:  # --help and --version end here
        return name
    if name in ("slurm", "ray") and context.params["command"]:  # none with --follow and --stop
        parse(context.params["command"])
    return name


DOCUMENTS = documents()


@pytest.mark.parametrize("path", DOCUMENTS, ids=str)
def test_links_lead_somewhere(path):
    assert broken_links(path) == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=str)
def test_the_command_lines_are_accepted(path):
    text = (ROOT / path).read_text()
    for arguments in command_lines(text, PROGRAM):
        parse(arguments)
    for arguments in command_lines(text, GERBILIZER):
        parse_arguments(arguments)


class TestTheTestsThemselves:
    def test_command_lines_are_found(self):
        text = (
            "```bash\n$ gerbil-tune report quick | less   # page\n.venv/bin/gerbil-tune train \\\n"
            "    --data 'my data'  # all\necho gerbil-tune nothing\n```\ngerbil-tune prose\n"
            "```\nA=b gerbil-tune models && ls\n```\n"
        )
        assert list(command_lines(text, PROGRAM)) == [
            ["report", "quick"],
            ["train", "--data", "my data"],
            ["models"],
        ]

    @pytest.mark.parametrize(
        "line",
        [
            "search SPACE.yaml --data d --set training/epochs=3 --trials 50",
            "submit slurm --gpus-per-node 2 -- search SPACE.yaml --data d",
            "submit ray --address http://head:8265 -- predict --model m --data d -o out",
            "data check a.h5 b.h5",
            "--help",
            "search --help",
        ],
    )
    def test_a_right_line_is_accepted(self, line):
        parse(line.split())

    @pytest.mark.parametrize(
        "line",
        [
            "search SPACE.yaml",
            "search SPACE.yaml --data d --trials many",
            "search SPACE.yaml --data d --epoch 3",
            "predict --model m --data d",
            "submit slurm --gpus-per-node 2 -- search SPACE.yaml",
            "promote gerbil-locator first",
        ],
    )
    def test_a_wrong_line_is_noticed(self, line):
        with pytest.raises(UsageError):
            parse(line.split())

    @pytest.mark.parametrize("line", ["serach SPACE.yaml", "data chekc x"])
    def test_a_wrong_command_is_noticed(self, line):
        with pytest.raises(AssertionError, match="has no command"):
            parse(line.split())

    def test_broken_links_are_noticed(self, tmp_path):
        (tmp_path / "other.md").write_text("# The one & only\n")
        page = tmp_path / "page.md"
        page.write_text(
            "# Here\n[a](other.md) [b](missing.md) [c](#here) [d](#gone) [e](https://x.org)\n"
            "[f](other.md#the-one--only) [g](other.md#two) `[h](code.md)`\n```\n[i](block.md)\n```\n"
        )
        assert broken_links(page) == ["missing.md", "#gone", "other.md#two"]

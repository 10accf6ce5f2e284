"""Files and the git repository that the tasks are about."""

import json
import os
import shutil
import subprocess
from pathlib import Path

TOTALS = {"a": 1240, "b": 385, "c": 2710}
PORT = 8417
ZONE = "Asia/Kolkata"
WORD = "heliotrope"
NOTES = {
    "anchor": "Check the anchor chain every spring.",
    "boiler": "The boiler was repaired in March.",
    "chart": "New charts arrive in autumn.",
    "deck": "Paint the deck with two coats.",
    "engine": f"The engine cover is {WORD}, like the doors.",
    "flags": "The flags are in the blue box.",
    "galley": "The galley needs a new lamp.",
}
PEOPLE = {
    "Ines Falk": 1984, "Jonas Brandt": 1991, "Karla Weiss": 1977, "Leo Marin": 1968,
    "Mara Lind": 1995, "Nils Oster": 1982, "Olga Petrov": 1973, "Pavel Rusk": 1988,
}  # fmt: skip
COMMITS = (
    ("Mara Lind", "Add the harbor plan"),
    ("Tomas Reyes", "Correct the depth of pier two"),
    ("Mara Lind", "Add the crane"),
    ("Ines Falk", "Remove the old ferry times"),
    ("Tomas Reyes", "Add the tide table"),
    ("Olga Petrov", "Correct the tide table"),
)
BRANCH = "harvest"


class Workspace:
    """A directory with all files. `reset` writes them again before each task."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @property
    def repository(self) -> Path:
        """The git repository."""
        return self.directory / "repo"

    @property
    def written(self) -> Path:
        """The directory to which tasks write."""
        return self.directory / "out"

    def reset(self) -> None:
        """Write all files except the repository, and remove what a task has written."""
        for name in ("notes", "invoices", "out"):
            shutil.rmtree(self.directory / name, ignore_errors=True)
            (self.directory / name).mkdir(parents=True)
        for name, text in NOTES.items():
            (self.directory / "notes" / f"{name}.txt").write_text(f"{text}\n")
        (self.directory / "notes" / "index.md").write_text("# Notes\n")
        for name, total in TOTALS.items():
            invoice = {"number": f"INV-{name}", "total": total}
            (self.directory / "invoices" / f"{name}.json").write_text(json.dumps(invoice))
        settings = {"name": "harbor", "port": PORT, "workers": 6}
        (self.directory / "settings.json").write_text(json.dumps(settings, indent=2))
        (self.directory / "zone.txt").write_text(f"{ZONE}\n")
        people = "".join(f"{name},{year}\n" for name, year in PEOPLE.items())
        (self.directory / "people.csv").write_text(f"name,born\n{people}")

    def create(self) -> None:
        """Write all files, and make the repository with its commits."""
        self.reset()
        shutil.rmtree(self.repository, ignore_errors=True)
        self.repository.mkdir()
        self._git("init", "-q", "-b", "main")
        for day, (author, title) in enumerate(COMMITS, 1):
            (self.repository / "plan.txt").write_text(f"{title}\n")
            self._git("add", "plan.txt")
            self._git("commit", "-q", "-m", title, author=author, day=day)
        self._git("branch", BRANCH)

    def _git(self, *words: str, author: str = "Bench", day: int = 1) -> None:
        date = f"2026-05-{day:02}T08:00:00+00:00"
        mail = f"{author.lower().replace(' ', '.')}@harbor.example"
        names = {
            f"GIT_{role}_{field}": value
            for role in ("AUTHOR", "COMMITTER")
            for field, value in (("NAME", author), ("EMAIL", mail), ("DATE", date))
        }
        subprocess.run(
            ["git", *words], cwd=self.repository, env={**os.environ, **names}, check=True
        )

"""Script that writes every generated reference page: `make reference`."""

from reference.pages import PAGES, ROOT, rendered


def main() -> None:
    """Write the pages that differ from the code, and print their names."""
    for page in PAGES:
        path = ROOT / page
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.read_text() if path.exists() else ""
        after = rendered(page, before)
        if after != before:
            path.write_text(after)
            print(f"wrote {page}")  # noqa: T201


main()

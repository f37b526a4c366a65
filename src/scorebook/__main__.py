"""The command line: ``python -m scorebook COMMAND``; the Makefile calls nothing else to make the book.

A command is a function of this module; its docstring is its help.
"""

import argparse
import sys
from pathlib import Path

from scorebook.files import book_root


def run(root, options):
    """execute the chapters that are out of date"""
    from scorebook import runner

    return runner.run(root, options.only, options.profile, options.jobs, options.seed)


def paper(root, options):
    """run the paper profile, one job for every chapter and data set"""
    from scorebook import jobs

    return jobs.run(root, options.only, options.data, options.force, options.seed)


def figures(root, options):
    """write the figures to _build/figures and compare the numbers with results/quick"""
    from scorebook import results, runner

    if failed := runner.run(root):
        return failed
    print(f"{results.write_figures(root)} figures in {(root / '_build' / 'figures').relative_to(root)}")
    if options.update:
        results.update(root)
    lines = results.compare(root)
    print("\n".join(lines) or "all numbers agree with results/quick")
    return len(lines)


def pages(root, options):
    """generate the teaching and reproduction pages"""
    from scorebook import pages

    pages.write(root)


def build(root, options):
    """build the site, strictly, if anything changed"""
    from scorebook import site

    print(f"open {site.build(root).relative_to(root) / 'index.html'}")


def check(root, options):
    """check the built site: links, alternative texts, offline, browser"""
    from scorebook.check import check

    return check(options.path or root / "_build" / "html", browser=options.browser)


def student(root, options):
    """build the edition without solutions"""
    from scorebook import student

    print(f"open {student.build(root).relative_to(root) / 'index.html'}")


def _parser():
    parser = argparse.ArgumentParser(prog="python -m scorebook", description="Run the chapters and build the book.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(function):
        sub = commands.add_parser(function.__name__, help=function.__doc__, description=function.__doc__)
        sub.set_defaults(function=function)
        return sub

    sub = command(run)
    sub.add_argument("--profile", choices=["quick", "paper"], default="quick")
    sub.add_argument("--jobs", type=int, default=2, help="chapters executed at once (default 2)")
    _choice(sub)
    sub = command(paper)
    sub.add_argument("--data", nargs="+", metavar="NAME", help="only these data sets, as in mnist")
    sub.add_argument("--force", action="store_true", help="run jobs whose result is up to date, too")
    _choice(sub)
    sub = command(figures)
    sub.add_argument("--update", action="store_true", help="commit the regenerated numbers to results/quick")
    command(pages)
    command(build)
    sub = command(check)
    sub.add_argument("path", nargs="?", type=Path, help="folder of the site (default _build/html)")
    sub.add_argument("--no-browser", dest="browser", action="store_false", help="do not open the pages in Chromium")
    command(student)
    return parser


def _choice(sub):
    sub.add_argument("--only", nargs="+", metavar="NN", help="only these chapters, as in 03 or 03_name")
    sub.add_argument("--seed", type=int, default=0)


def main(arguments=None):
    """Run one command; returns the exit status: 0 when nothing is wrong, 130 when it was interrupted."""
    options = _parser().parse_args(arguments)
    try:
        return int(bool(options.function(book_root(), options)))
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; finished chapters are kept", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())

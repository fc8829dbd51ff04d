#!/usr/bin/python3
"""Answers a question in SQL about tables in CSV files."""
import csv
import pathlib
import sqlite3
import sys

from tabulate import tabulate


def number(text):
    """The number that a text is, or else the text."""
    for kind in int, float:
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def quote(name):
    return '"' + name.replace('"', '""') + '"'


def load(db, path):
    """Makes a table of a file, with its first line as the names of the columns."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        columns = next(rows)
        table = quote(pathlib.Path(path).stem)
        db.execute(f"create table {table} ({', '.join(map(quote, columns))})")
        marks = ", ".join("?" * len(columns))
        db.executemany(f"insert into {table} values ({marks})", (tuple(map(number, row)) for row in rows if row))


def main():
    if len(sys.argv) < 3:
        sys.exit("usage: csvsql QUERY FILE.csv…")
    db = sqlite3.connect(":memory:")
    for path in sys.argv[2:]:
        load(db, path)
    result = db.execute(sys.argv[1])
    print(tabulate(result.fetchall(), [column[0] for column in result.description], "simple"))


if __name__ == "__main__":
    try:
        main()
    except (OSError, sqlite3.Error, StopIteration) as error:
        sys.exit(f"csvsql: {error or 'a file is empty'}")

"""CLUSTERPRO's configuration file clp.conf (CLUSTERPRO.md, section 5): read it, and make a dcsup.toml of it.

    reading.py    bytes -> text -> a tree with lines; refuses hostile XML, and what cannot be bounded
    model.py      what dcsup wants to know of the file, and nothing else: no password can be in it
    parsing.py    tree -> model and findings
    exported.py   a clp.conf, or the folder that `clpcfctrl --pull` writes, with its scripts
    guessing.py   model -> what a dcsup.toml could say, each guess with its reason
    writing.py    the guesses as a commented file

The file holds encrypted passwords, accounts and communities. They are kept out by construction: the model is filled from
named places only, texts about mistakes hold places and never values, and of a command line only the program is kept.
"""

"""Start one of the stand-ins: ``python -I -S _run.py <module> <arguments>``.

Isolated mode knows neither the folder of the script nor installed packages, which is what makes it quick; so the one place this
package needs is put on the path here. The work is done in modules, whose byte code is cached.
"""

import sys
from importlib import import_module
from os.path import abspath, dirname

if __name__ == "__main__":
    sys.path.insert(0, dirname(dirname(dirname(dirname(abspath(__file__))))))
    module = import_module(f"deploy.sandbox.standins.{sys.argv[1]}")
    sys.exit(module.main(sys.argv[2:]))

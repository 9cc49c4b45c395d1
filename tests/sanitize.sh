#!/bin/sh
# Runs the C core under the sanitisers, all built in a temporary folder: the driver without Python (tests/driver) under
# the address (with leaks) and undefined-behaviour ones and under the thread one, then the binding's tests and a fuzz
# run under the first two.
# $PYTHON: the interpreter to use (default: python), with what the build and the tests need; $CC: gcc (default);
# $ROUNDS (20) and $SEED (0) of the driver, $SECONDS_FUZZ (20) of the fuzz run.
set -eu

python=${PYTHON:-python}
root=$(cd "$(dirname "$0")/.." && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$root"
DDOQ_WERROR=1
DDOQ_BUILD_CUDA=0
UBSAN_OPTIONS=print_stacktrace=1
export DDOQ_WERROR DDOQ_BUILD_CUDA UBSAN_OPTIONS

DDOQ_SANITIZE=address,undefined "$python" tests/driver/build.py "$folder/driver"
ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=1 "$folder/driver" "${ROUNDS:-20}" "${SEED:-0}"
DDOQ_SANITIZE=thread "$python" tests/driver/build.py "$folder/driver"
# the thread sanitiser needs its addresses where they are without randomisation
TSAN_OPTIONS=allocator_may_return_null=1 setarch -R "$folder/driver" "${ROUNDS:-20}" "${SEED:-0}"

DDOQ_SANITIZE=address,undefined "$python" setup.py -q build_ext --build-lib "$folder/lib" --build-temp "$folder/temp"
find ddoq -name "*.py" -exec cp --parents {} "$folder/lib" ";"

# --capture=sys: a report goes to the terminal, not into the capture of a process that ends
cd "$folder" # so that the package built here is the one that is imported
PYTHONPATH="$folder/lib"
LD_PRELOAD="$(${CC:-gcc} -print-file-name=libasan.so) $(${CC:-gcc} -print-file-name=libubsan.so)"
ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1
export PYTHONPATH LD_PRELOAD ASAN_OPTIONS
"$python" -c "import ddoq._core as core; assert core.__file__.startswith('$folder'), core.__file__"
"$python" -m pytest -q --capture=sys -p no:cacheprovider -c "$root/pyproject.toml" --rootdir "$folder" \
    "$root/tests/machine/test_core.py" "$root/tests/machine/test_core_fuzz.py"
"$python" "$root/tests/fuzz.py" --seconds "${SECONDS_FUZZ:-20}" --seed "${SEED:-0}"

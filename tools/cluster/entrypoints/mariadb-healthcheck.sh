#!/bin/bash
# healthcheck.sh [--connect] [--innodb_initialized]: exit code 0 when all that is asked for holds.
set -eu

query() {
    mariadb --defaults-file=/var/lib/mysql/.my-healthcheck.cnf --skip-column-names "$@"
}

(($# > 0)) || { echo 'nothing was asked for' >&2; exit 1; }
for check; do
    case $check in
        --connect)
            # An answer is enough, even "access denied": the temporary server has no port.
            said=$(query --protocol=tcp --host=localhost --execute='SELECT 1' 2>&1) ||
                [[ $said == *'ERROR 1045'* ]]
            ;;
        --innodb_initialized)
            [[ $(query --execute="SELECT 1 FROM information_schema.ENGINES
                WHERE engine = 'innodb' AND support IN ('YES', 'DEFAULT', 'ENABLED')") == 1 ]]
            ;;
        *) echo "not known here: $check" >&2; exit 1 ;;
    esac
done

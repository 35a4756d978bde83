#!/bin/sh
# Brings the jars of the test broker named in pom.xml into lib/ beside this file. Does nothing when they are already there;
# a changed pom.xml or an interrupted run brings them anew, since lib/.complete is written last and holds the pom's checksum.
set -eu
cd "$(dirname "$0")"

fail() {
    echo "tests/kafka/fetch.sh: $1" >&2
    exit 1
}

command -v java >/dev/null 2>&1 ||
    fail "java not found: install a Java runtime, 17 or newer (Debian: apt-get install openjdk-17-jre-headless)"

# Two runs at once take turns; the second then finds the jars in place.
mkdir -p target
exec 9>target/fetch.lock
flock 9

wanted=$(cksum <pom.xml)
if [ -f lib/.complete ] && [ "$(cat lib/.complete)" = "$wanted" ]; then
    exit 0
fi

command -v mvn >/dev/null 2>&1 ||
    fail "mvn not found: install Apache Maven (Debian: apt-get install maven)"

echo "bringing the Apache Kafka test broker from Maven Central" >&2
# The new set is gathered aside and moved into place whole, so that a half-brought one is never run.
rm -rf target/lib
mvn --quiet --batch-mode --file pom.xml -Djars="$PWD/target/lib" dependency:copy-dependencies >&2 ||
    fail "Maven could not bring the jars (see above): it needs Maven Central, or a mirror set in ~/.m2/settings.xml"
echo "$wanted" >target/lib/.complete
rm -rf lib
mv target/lib lib

"""The versions of the metastore: what each is made of, and what it is started with."""

from dataclasses import dataclass, field, replace
from typing import Mapping, Optional

from .layout import HOST

# Jars of Hadoop that every version brings itself, or that would take over its logging.
HADOOP_WITHOUT = ("reload4j", "slf4j-reload4j", "netty-", "guava-", "listenablefuture", "jsr305")
# What hive-exec looks into by reflection, to copy query plans and to read filters on partitions.
OPENED = "io lang lang.reflect math net nio text time util util.concurrent util.concurrent.atomic util.regex".split()
HIVE_EXEC_FLAGS = tuple(f"--add-opens=java.base/java.{package}=ALL-UNNAMED" for package in OPENED)


@dataclass(frozen=True)
class Version:
    # `conf/POM.pom.xml`: the tarball with the libraries and the schema scripts.
    pom: str
    # Scripts that create the schema, in order, without the name of the database.
    schema: tuple[str, ...]
    # `conf/POM.pom.xml` of a server that is not in the tarball, or of what HiveServer2 expects the server to have beside it.
    server_pom: Optional[str] = None
    # Whether it runs hive-exec on a Java newer than 8 only with the classes of `conf/hive3`.
    old_java: bool = False
    # Whether a compare-and-swap of the environment context is honoured.
    keeps_expected_values: bool = False
    # Jars of the tarball that this server must not see.
    lib_without: tuple[str, ...] = ()
    # The database, by its name in Hive's scripts: postgres or derby.
    database: str = "postgres"
    classpath: tuple[str, ...] = ("{conf}", "{lib}/*", "{dist}/*", "{hadoop}/*", "{server}/*")
    site_file: str = "metastore-site.xml"
    # What stands before the names of the settings that newer versions call `metastore.…`.
    setting_prefix: str = ""
    # The logging settings that the server looks for on its class path, whatever the JVM was told.
    log_file: str = "metastore-log4j2.properties"
    # Settings that other versions do not have, or have otherwise. {warehouse} is a directory on HDFS.
    site: Mapping[str, str] = field(default_factory=dict)
    # A Java newer than 17, if the classes want one.
    newer_java: bool = False
    # Whether it is another server on the main metastore's database and warehouse, with nothing of its own.
    shares_main: bool = False
    # Settings of how often locks that have timed out are looked for.
    reaper_intervals: tuple[str, ...] = ("hive.timedout.txn.reaper.start", "hive.timedout.txn.reaper.interval")


HIVE_4_0_1 = Version(
    pom="metastore-4.0.1",
    server_pom="hive-exec-4.0.1",
    keeps_expected_values=True,
    schema=("hive-schema-4.0.0",),
    site={
        # Older ones listen on all addresses.
        "metastore.thrift.bind.host": HOST,
        "metastore.warehouse.external.dir": "{warehouse}/external",
        # The asynchronous logger needs a library that the tarball does not bring.
        "metastore.async.log.enabled": "false",
        # The other tasks of the default list want hive-exec, or serve what no test uses.
        "metastore.task.threads.always": "org.apache.hadoop.hive.metastore.events.EventCleanerTask",
        "hive.metastore.event.db.notification.api.auth": "false",
        # As in production, the lock of a client that was killed ends after metastore.txn.timeout (300 s).
        "metastore.housekeeping.threads.on": "true",
        "metastore.task.threads.remote": "org.apache.hadoop.hive.metastore.txn.service.AcidHouseKeeperService",
        "metastore.compactor.initiator.on": "false",
        "metastore.compactor.cleaner.on": "false",
    },
    reaper_intervals=("metastore.acid.housekeeper.interval",),
)

HIVE_3_1_3 = Version(
    pom="metastore-3.1.3",
    server_pom="hive-exec-3.1.3",
    old_java=True,
    classpath=("{classes}", "{conf}", "{lib}/*", "{dist}/*", "{hadoop}/*", "{server}/*"),
    schema=("hive-schema-3.1.0",),
    site={
        "metastore.async.log.enabled": "false",
        # What ends the locks of killed clients runs by default only beside the compactor, which is a part of hive-exec.
        "metastore.task.threads.always": "org.apache.hadoop.hive.metastore.events.EventCleanerTask,"
        "org.apache.hadoop.hive.metastore.txn.AcidHouseKeeperService",
        "hive.metastore.event.db.notification.api.auth": "false",
    },
)

# Its release has no tarball of the metastore. hive-exec holds it; its libraries are those of 3.1.3's tarball (the same DataNucleus),
# and so are its scripts.
HIVE_2_3_9 = Version(
    pom="metastore-3.1.3",
    server_pom="metastore-2.3.9",
    schema=(
        "hive-schema-1.2.0",
        "upgrade-1.2.0-to-2.0.0",
        "upgrade-2.0.0-to-2.1.0",
        "upgrade-2.1.0-to-2.2.0",
        "upgrade-2.2.0-to-2.3.0",
    ),
    lib_without=("hive-", "orc-"),
    # hive-exec holds old copies of libraries that Hadoop wants newer.
    classpath=("{conf}", "{hadoop}/*", "{server}/*", "{lib}/*", "{dist}/*"),
    site_file="hive-site.xml",
    log_file="hive-log4j2.properties",
    setting_prefix="hive.",
    site={
        "hive.async.log.enabled": "false",
        "datanucleus.connectionPoolingType": "HikariCP",
        # What ends the locks of killed clients runs only beside the compactor, and only with Hive's own transactions.
        "hive.compactor.initiator.on": "true",
        "hive.support.concurrency": "true",
        "hive.txn.manager": "org.apache.hadoop.hive.ql.lockmgr.DbTxnManager",
    },
)

# Newer servers have no tarball either, and hive-exec holds them too. Libraries and schema are those of 4.0.1: the tables that 4.1 and 4.2
# add are made by the server itself, so the code is real and the schema a mixture, which no release ever wrote.
HIVE_4_1_0 = replace(
    HIVE_4_0_1,
    server_pom="metastore-4.1.0",
    lib_without=("hive-", "datanucleus-", "javax.jdo-"),
    classpath=("{conf}", "{server}/*", "{lib}/*", "{hadoop}/*"),
    site={
        **HIVE_4_0_1.site,
        "metastore.schema.verification": "false",
        "datanucleus.schema.autoCreateAll": "true",
    },
)

VERSIONS = {
    "4.0.1": HIVE_4_0_1,
    "3.1.3": HIVE_3_1_3,
    "2.3.10": replace(HIVE_2_3_9, server_pom="metastore-2.3.10", keeps_expected_values=True),
    "2.3.9": HIVE_2_3_9,
    "4.1.0": HIVE_4_1_0,
    "4.2.1": replace(HIVE_4_1_0, server_pom="metastore-4.2.1", newer_java=True),
    # For failing over from one to the other; the main one has to be 4.0.1.
    "second": replace(HIVE_4_0_1, shares_main=True),
    # Hive's own schema for Derby keeps table parameters in CLOB columns, which Derby does not compare: 4.0.1 refuses every
    # compare-and-swap there, also the right one.
    "derby": replace(
        HIVE_4_0_1,
        database="derby",
        keeps_expected_values=False,
        # It tries each refused call again ten times, with two seconds in between.
        site={**HIVE_4_0_1.site, "metastore.hmshandler.retry.interval": "50ms"},
    ),
}
DEFAULT_VERSION = "4.0.1"

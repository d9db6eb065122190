"""The real servers that lakesmith is tested against, started as plain processes on loopback.

`layout` says where things lie, `artifacts` fetches what they are made of, `process` owns their process ids, `server` is
what all servers have in common; `kafka`, `hdfs`, `postgres` and `metastore` (with its versions and its databases) are the
servers, `spark` the second engine; `choices` remembers what a stack was made with; `stack` puts them together.
"""

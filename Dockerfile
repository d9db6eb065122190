# Everything but glibc is linked into the binary, so the second stage needs nothing else.
FROM rust:1.95.0-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked

FROM debian:12.11-slim
RUN useradd --system --create-home --home-dir /var/lib/lakesmith lakesmith
COPY --from=build /src/target/release/lakesmith /usr/local/bin/lakesmith
USER lakesmith
WORKDIR /var/lib/lakesmith
RUN lakesmith init pipeline.toml
CMD ["lakesmith", "run"]

# One static-enough binary: everything but glibc is linked in.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked

FROM debian:bookworm-slim
COPY --from=build /src/target/release/lakesmith /usr/local/bin/lakesmith
WORKDIR /etc/lakesmith
RUN lakesmith init pipeline.toml
CMD ["lakesmith", "run", "-c", "/etc/lakesmith/pipeline.toml"]

# syntax=docker/dockerfile:1
# The server in a small image. docs/containers.md says how it is used; scripts/image builds and
# tries it without a container engine.

# The toolchain is the one of rust-toolchain.toml; tests/tidy.rs compares them.
FROM rust:1.95.0-slim-trixie AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
COPY .sqlx .sqlx
COPY migrations migrations
COPY src src
# .cargo says that queries are checked against the committed .sqlx, and what SQLite leaves out.
# The touch: sources can be older than what an interrupted build has left in the cache. Line tables
# would make up half of the image; names of functions stay.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    touch src/lib.rs src/main.rs \
    && cargo build --release --locked --bin cc-executor \
    && install -D target/release/cc-executor /out/cc-executor \
    && strip --strip-debug /out/cc-executor

FROM debian:trixie-slim
# Its number is fixed, so that the owner of a volume stays the same from image to image.
RUN useradd --uid 10001 --user-group --create-home --shell /bin/bash executor \
    && install -d -m 0700 -o executor -g executor /data
COPY --from=build /out/cc-executor /usr/local/bin/cc-executor

# Everything that has to last. A server that nobody reaches from outside its container is of no
# use, so it listens on all addresses in there; publish the port on the host's loopback only.
ENV CC_EXECUTOR_DATA_DIR=/data \
    CC_EXECUTOR_LISTEN=0.0.0.0:8003 \
    CC_EXECUTOR_INSECURE_LISTEN=true
VOLUME ["/data"]
EXPOSE 8003
USER 10001:10001
WORKDIR /home/executor

# What it asks for: take no more work, tell the sessions, exit with 0 within 5 s.
STOPSIGNAL SIGTERM
# Over the Unix socket: needs neither token nor curl, and says whether the server answers.
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 \
    CMD ["cc-executor", "status"]
# No shell in between: the signals are for us.
ENTRYPOINT ["/usr/local/bin/cc-executor"]
CMD ["serve"]

# syntax=docker/dockerfile:1
# The server in a small image. docs/containers.md describes its use; scripts/image builds and
# tests it without a container engine.

# The same toolchain as in rust-toolchain.toml; tests/tidy.rs compares them.
FROM rust:1.95.0-slim-trixie AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
COPY .sqlx .sqlx
COPY migrations migrations
COPY src src
# .cargo sets that queries are checked against the committed .sqlx, and what SQLite leaves out.
# The touch: sources can be older than what an interrupted build has left in the cache. The strip
# removes line tables, which would be half of the image; names of functions stay.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    touch src/lib.rs src/main.rs \
    && cargo build --release --locked --bin cc-executor \
    && install -D target/release/cc-executor /out/cc-executor \
    && strip --strip-debug /out/cc-executor

FROM debian:trixie-slim
# The user id is fixed, so that the owner of a volume stays the same from image to image.
RUN useradd --uid 10001 --user-group --create-home --shell /bin/bash executor \
    && install -d -m 0700 -o executor -g executor /data
COPY --from=build /out/cc-executor /usr/local/bin/cc-executor
# The authorities that certificates of receivers of notices are checked against.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt

# /data holds everything that has to last. A server that listens on the container's loopback only
# cannot be reached from outside, so it listens on all addresses; publish the port on the host's
# loopback only.
ENV CC_EXECUTOR_DATA_DIR=/data \
    CC_EXECUTOR_LISTEN=0.0.0.0:8003 \
    CC_EXECUTOR_INSECURE_LISTEN=true
VOLUME ["/data"]
EXPOSE 8003
USER 10001:10001
WORKDIR /home/executor

# At this signal the server takes no more work, notifies the sessions and exits with 0 within 5 s.
STOPSIGNAL SIGTERM
# Over the Unix socket: needs neither token nor curl, and checks that the server answers.
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 \
    CMD ["cc-executor", "status"]
# No shell in between: signals go to the server.
ENTRYPOINT ["/usr/local/bin/cc-executor"]
CMD ["serve"]

# Tallykeeper in a container. Build: docker build -t tallykeeper .
#
# Without a token a node listens on loopback only, so as it comes this image serves nobody but its own container. To open it, make the
# first token, and only then listen to the world:
#
#   docker volume create tally
#   docker run --rm -v tally:/data tallykeeper token create --name admin --scope admin --store sqlite:/data/tallykeeper.db
#   docker run -d --hostname tally --stop-timeout 45 -p 8080:8080 -v tally:/data tallykeeper serve --listen 0.0.0.0:8080
#
# The host's name is the node's id, which should stay the same when the container is replaced. TALLYKEEPER_LISTEN does what --listen does.
# The first command prints the token, once. With PostgreSQL, give both commands the address of the database instead
# (-e TALLYKEEPER_STORE=postgres://…, and --store for `token`); the volume is not needed then.
#
# Stopping: SIGTERM drains the node, which may take as long as drain_timeout_ms (30 s); Docker kills after 10 s unless --stop-timeout says
# otherwise. A killed node loses no acknowledged result, but forgets the leases given out since its last snapshot.

FROM rust:1.95-bookworm AS build
WORKDIR /build

# The dependencies first, against an empty program, so that they are built again only when a manifest changes. Tests and benches are no
# part of the image, and cargo wants every target that a manifest names to exist, so those sections go.
COPY Cargo.toml Cargo.lock ./
RUN awk '/^\[/ { skip = /^\[\[(test|bench)\]\]/ } !skip' Cargo.toml > image.toml && mv image.toml Cargo.toml \
    && mkdir src && : > src/lib.rs && echo 'fn main() {}' > src/main.rs \
    && cargo build --locked --release --bin tallykeeper

# Then the program. The copied files are older than the empty program's artifacts, and cargo goes by time.
COPY config config
COPY src src
RUN touch src/lib.rs src/main.rs && cargo build --locked --release --bin tallykeeper

FROM debian:bookworm-slim
# TLS to PostgreSQL is checked against the system's certificates.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 tallykeeper \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin tallykeeper \
    && install -d -o tallykeeper -g tallykeeper -m 0750 /data
COPY --from=build /build/target/release/tallykeeper /usr/local/bin/tallykeeper

USER 10001:10001
# Relative paths (config/tallykeeper.toml, ./tallykeeper.db) start here.
WORKDIR /data
VOLUME /data
ENV TALLYKEEPER_STORE=sqlite:/data/tallykeeper.db \
    TALLYKEEPER_LISTEN=127.0.0.1:8080
EXPOSE 8080
STOPSIGNAL SIGTERM

# bash is in every Debian image, so the check needs no tool of its own (curl would bring thirty packages along). It asks /healthz, which
# says whether the process works, and not /readyz, which also turns false while the database is away: restarting would not bring it back.
# The port is that of TALLYKEEPER_LISTEN; whoever gives --listen another port should set the variable instead.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["bash", "-c", "\
    exec 3<>\"/dev/tcp/127.0.0.1/${TALLYKEEPER_LISTEN##*:}\" \
    && printf 'GET /healthz HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\nConnection: close\\r\\n\\r\\n' >&3 \
    && read -r -t 4 _ status _ <&3 && [ \"$status\" = 200 ]"]

ENTRYPOINT ["tallykeeper"]
CMD ["serve"]

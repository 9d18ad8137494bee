FROM python:3.12-slim

# The dependencies have a layer of their own: the code changes, they seldom do.
WORKDIR /src
COPY pyproject.toml ./
RUN python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' \
        > requirements.txt \
    && pip install --no-cache-dir --disable-pip-version-check --requirement requirements.txt
COPY README.md LICENSE supervisord.conf ./
COPY services services
RUN pip install --no-cache-dir --disable-pip-version-check . \
    && groupadd --system --gid 2379 quorate \
    && useradd --system --uid 2379 --gid quorate --home-dir /var/lib/quorate --no-create-home quorate \
    && install --directory --mode 0700 --owner quorate --group quorate /var/lib/quorate \
    && rm -rf /src/*

USER quorate
WORKDIR /var/lib/quorate
VOLUME /var/lib/quorate
EXPOSE 2379 2380
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=10s --start-period=30s --retries=3 \
    CMD ["python", "-m", "quorate.node.check", "--serializable"]
ENTRYPOINT ["quorate"]
CMD ["--listen-client-urls=http://0.0.0.0:2379", "--advertise-client-urls=http://127.0.0.1:2379"]

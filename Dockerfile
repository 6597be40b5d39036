# The image of warifu: the program, the authorities that browsers' addresses are vouched for by, licences, and nothing else. It is
# put together from what `make image` lays in artifacts/image, so building it takes no other image:
#
#   make image                                                        # with podman, or IMAGE_BUILD="docker build"
#   make image PLUGINS=bin/warifu-runtime-kubernetes                  # with plugins, in /usr/lib/warifu/plugins
#   podman run --read-only -v ./config:/etc/warifu:ro -v warifu:/var/lib/warifu -p 5556:5556 warifu
#
# The configuration is config.yaml in /etc/warifu, where relative paths begin; web.http has to be 0.0.0.0:5556, or
# another port. Another command comes after the image's name, as in `warifu config validate config.yaml`; `podman exec
# NAME warifu get apps` asks the server that runs.
FROM scratch
COPY warifu /usr/bin/warifu
COPY plugins /usr/lib/warifu/plugins
COPY doc /usr/share/doc/warifu
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
# Whoever runs it needs no name. A volume gets this directory's owner and mode when it is made.
COPY --chown=65532:65532 --chmod=0700 state /var/lib/warifu
ENV PATH=/usr/bin WARIFU_STORAGE_CONFIG_DATA_DIR=/var/lib/warifu WARIFU_ADMIN=/var/lib/warifu/admin.sock
USER 65532:65532
WORKDIR /etc/warifu
VOLUME /var/lib/warifu
EXPOSE 5556
# Whether it answers, not whether it is ready: another start does not bring back an etcd that is away.
HEALTHCHECK --interval=30s --timeout=10s --start-period=5m --retries=3 CMD ["/usr/bin/warifu", "healthcheck"]
ENTRYPOINT ["/usr/bin/warifu"]
CMD ["serve", "/etc/warifu/config.yaml"]

{{/* At most 52 characters, and always with warifu in it: by that the alerts know the jobs of Prometheus. */}}
{{- define "warifu.fullname" -}}
{{- if contains "warifu" (.Release.Name | trunc 52) -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-warifu" (.Release.Name | trunc 45 | trimSuffix "-") -}}
{{- end -}}
{{- end -}}

{{/* A text as the value of a label: at most 63 characters, with a letter or digit at both ends. */}}
{{- define "warifu.label" -}}
{{- regexReplaceAll "^[^A-Za-z0-9]+|[^A-Za-z0-9]+$" (. | replace "+" "_" | trunc 63) "" -}}
{{- end -}}

{{- define "warifu.selector" -}}
app.kubernetes.io/name: warifu
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "warifu.labels" -}}
{{ include "warifu.selector" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ include "warifu.label" (.Values.image.tag | default .Chart.AppVersion) | quote }}
helm.sh/chart: {{ include "warifu.label" (printf "%s-%s" .Chart.Name .Chart.Version) | quote }}
{{- end -}}

{{- define "warifu.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "warifu.fullname" .) -}}
{{- end -}}

{{- define "warifu.secret" -}}
{{- .Values.existingSecret | default (include "warifu.fullname" .) -}}
{{- end -}}

{{- define "warifu.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* Pods: replicas, which is for storage etcd. */}}
{{- define "warifu.replicas" -}}
{{- ternary 2 .Values.replicas (kindIs "invalid" .Values.replicas) -}}
{{- end -}}

{{/* The configuration as values, as far as it is given here; web, storage and manifests are mappings, if empty ones. */}}
{{- define "warifu.configuration" -}}
{{- $c := dict -}}
{{- if not .Values.existingSecret -}}
{{- $c = fromYaml .Values.configuration -}}
{{- if hasKey $c "Error" -}}
{{- if contains "cannot unmarshal" (toString $c.Error) -}}
{{- fail "configuration must be a mapping, as config.example.yaml is" -}}
{{- end -}}
{{- fail (printf "configuration is not YAML: %s" $c.Error) -}}
{{- end -}}
{{- if not $c.issuer -}}
{{- fail "configuration has no issuer: say the address of the server as apps and browsers see it" -}}
{{- end -}}
{{- if not (regexMatch "^https?://[^/]" (toString $c.issuer)) -}}
{{- fail (printf "the issuer of the configuration is %v; it must be a URL, such as https://id.example.com" $c.issuer) -}}
{{- end -}}
{{- end -}}
{{- range $name, $example := dict "web" "web: {trustedProxies: [10.244.0.0/16]}" "storage" "storage: {type: etcd}" "manifests" "manifests: {directories: [/etc/warifu-apps]}" -}}
{{- $section := index $c $name -}}
{{- if kindIs "invalid" $section -}}
{{- $_ := set $c $name dict -}}
{{- else if not (kindIs "map" $section) -}}
{{- fail (printf "%s of the configuration must be a mapping, such as %s" $name $example) -}}
{{- end -}}
{{- end -}}
{{- toYaml $c -}}
{{- end -}}

{{/* Whether a file or directory that the configuration names is one that pods cannot have: list CONTEXT PATH. Those of
/etc/warifu are in the Secret, or are mounted there. */}}
{{- define "warifu.absent" -}}
{{- $context := index . 0 -}}
{{- $path := toString (index . 1) -}}
{{- if not (hasPrefix "/" $path) -}}{{- $path = printf "/etc/warifu/%s" $path -}}{{- end -}}
{{- $path = clean $path -}}
{{- $there := not (hasPrefix "/etc/warifu/" $path) -}}
{{- if hasKey $context.Values.files (trimPrefix "/etc/warifu/" $path) -}}{{- $there = true -}}{{- end -}}
{{- range $context.Values.extraVolumeMounts -}}
{{- if and .mountPath (hasPrefix (printf "%s/" (trimSuffix "/" .mountPath)) (printf "%s/" $path)) -}}
{{- $there = true -}}
{{- end -}}
{{- end -}}
{{- if not $there -}}absent{{- end -}}
{{- end -}}

{{/* What a pod cannot be run with, in one place. */}}
{{- define "warifu.check" -}}
{{- $c := include "warifu.configuration" . | fromYaml -}}
{{- $context := . -}}
{{- if not .Values.existingSecret -}}
{{- $type := $c.storage.type | default "embedded" -}}
{{- if ne (toString $type) .Values.storage -}}
{{- fail (printf "storage.type of the configuration is %v, and storage of the chart is %s; set both to the same value" $type .Values.storage) -}}
{{- end -}}
{{- if and (eq .Values.storage "etcd") (not $c.encryptionKeyFiles) -}}
{{- fail "with storage etcd the configuration needs encryptionKeyFiles: [/etc/warifu/encryption.key], and files that key (openssl rand -base64 32)" -}}
{{- end -}}
{{- if kindIs "slice" $c.encryptionKeyFiles -}}
{{- range $c.encryptionKeyFiles -}}
{{- if include "warifu.absent" (list $context .) -}}
{{- fail (printf "encryptionKeyFiles of the configuration names %v, which pods do not have; add it to files (openssl rand -base64 32)" .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $directories := list -}}
{{- if kindIs "slice" $c.manifests.directories -}}{{- $directories = $c.manifests.directories -}}{{- end -}}
{{- range $directories -}}
{{- if include "warifu.absent" (list $context .) -}}
{{- fail (printf "manifests.directories of the configuration names %v, which pods do not have; apps are in /etc/warifu-apps" .) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.apps (not (has "/etc/warifu-apps" $directories)) (not (has "/etc/warifu-apps/" $directories)) -}}
{{- fail "apps are in /etc/warifu-apps of the pods; add that to manifests.directories of the configuration" -}}
{{- end -}}
{{- end -}}
{{- range $name, $text := .Values.apps -}}
{{- if not (regexMatch "^[-._a-zA-Z0-9]+\\.ya?ml$" $name) -}}
{{- fail (printf "apps has the file %q, which warifu does not read; its name must end in .yml or .yaml, as in board.yml" $name) -}}
{{- end -}}
{{- end -}}
{{- range $name, $text := .Values.files -}}
{{- if not (regexMatch "^[-._a-zA-Z0-9]+$" $name) -}}
{{- fail (printf "files has the name %q; a file's name has letters, digits, dots, - and _ only" $name) -}}
{{- end -}}
{{- end -}}
{{- if hasKey .Values.files "config.yaml" -}}
{{- fail "files has config.yaml; use `configuration` for config.yaml" -}}
{{- end -}}
{{- if not (or .Values.ports.http .Values.ports.https) -}}
{{- fail "ports.http and ports.https are both 0; enable ports.http or ports.https" -}}
{{- end -}}
{{- $taken := dict -}}
{{- range $name := list "http" "https" "metrics" -}}
{{- with index $context.Values.ports $name -}}
{{- $number := toString (int .) -}}
{{- if hasKey $taken $number -}}
{{- fail (printf "ports.%s and ports.%s are both %s; set different ones" (get $taken $number) $name $number) -}}
{{- end -}}
{{- $_ := set $taken $number $name -}}
{{- end -}}
{{- end -}}
{{- if and .Values.ports.http .Values.ports.https (eq (int .Values.service.port) (int .Values.service.httpsPort)) -}}
{{- fail (printf "service.port and service.httpsPort are both %d; set different ones" (int .Values.service.port)) -}}
{{- end -}}
{{- if and (eq .Values.storage "embedded") (not (kindIs "invalid" .Values.replicas)) -}}
{{- if ne (int .Values.replicas) 1 -}}
{{- fail (printf "replicas is %d, and with storage embedded there is one pod; leave replicas out, or set storage to etcd" (int .Values.replicas)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The pod, which is the same in a StatefulSet and in a Deployment but for its data. */}}
{{- define "warifu.pod" -}}
metadata:
  labels:
    {{- include "warifu.selector" . | nindent 4 }}
    {{- with .Values.podLabels }}{{ toYaml . | nindent 4 }}{{ end }}
  {{- with .Values.podAnnotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "warifu.serviceAccount" . }}
  automountServiceAccountToken: {{ or .Values.serviceAccount.automount (not (empty .Values.runtime.namespaces)) }}
  enableServiceLinks: false # they would be variables with the prefix of configuration
  terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532 # it alone reads the Secret
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile: {type: RuntimeDefault}
  containers:
    - name: warifu
      image: {{ include "warifu.image" . | quote }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [serve, /etc/warifu/config.yaml]
      workingDir: /etc/warifu
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {drop: [ALL]}
      env:
        {{- if .Values.ports.http }}
        - {name: WARIFU_WEB_HTTP, value: ":{{ .Values.ports.http }}"}
        {{- end }}
        {{- if .Values.ports.https }}
        - {name: WARIFU_WEB_HTTPS, value: ":{{ .Values.ports.https }}"}
        {{- end }}
        - {name: WARIFU_TELEMETRY_HTTP, value: ":{{ .Values.ports.metrics }}"}
        - {name: WARIFU_STORAGE_CONFIG_DATA_DIR, value: /var/lib/warifu}
        - {name: WARIFU_ADMIN, value: /var/lib/warifu/admin.sock}
        {{- with .Values.env }}{{ toYaml . | nindent 8 }}{{ end }}
      {{- with .Values.envFrom }}
      envFrom: {{- toYaml . | nindent 8 }}
      {{- end }}
      ports:
        {{- if .Values.ports.http }}
        - {name: http, containerPort: {{ .Values.ports.http }}}
        {{- end }}
        {{- if .Values.ports.https }}
        - {name: https, containerPort: {{ .Values.ports.https }}}
        {{- end }}
        - {name: metrics, containerPort: {{ .Values.ports.metrics }}}
      # An embedded database that is large takes its time to be read.
      startupProbe: {httpGet: {path: /healthz, port: metrics}, periodSeconds: 2, failureThreshold: 150}
      # It does not depend on etcd: another start does not bring back an etcd that is away.
      livenessProbe: {httpGet: {path: /healthz, port: metrics}, periodSeconds: 15, timeoutSeconds: 5, failureThreshold: 4}
      readinessProbe: {httpGet: {path: /readyz, port: metrics}, periodSeconds: 3, timeoutSeconds: 3, failureThreshold: 2}
      resources: {{- toYaml .Values.resources | nindent 8 }}
      volumeMounts:
        # A directory, not single files: only then a change of the Secret arrives in a pod that runs.
        - {name: configuration, mountPath: /etc/warifu, readOnly: true}
        - {name: apps, mountPath: /etc/warifu-apps, readOnly: true}
        - {name: data, mountPath: /var/lib/warifu}
        {{- with .Values.extraVolumeMounts }}{{ toYaml . | nindent 8 }}{{ end }}
  volumes:
    - name: configuration
      secret: {secretName: {{ include "warifu.secret" . }}, defaultMode: 0440}
    - name: apps
      configMap: {name: {{ include "warifu.fullname" . }}-apps}
    {{- if eq .Values.storage "etcd" }}
    - {name: data, emptyDir: {}} # the admin socket, and the state of plugins
    {{- else if .Values.persistence.existingClaim }}
    - {name: data, persistentVolumeClaim: {claimName: {{ .Values.persistence.existingClaim }}}}
    {{- end }}
    {{- with .Values.extraVolumes }}{{ toYaml . | nindent 4 }}{{ end }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- if eq .Values.storage "etcd" }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels: {{- include "warifu.selector" . | nindent 10 }}
  {{- end }}
{{- end -}}

{{/* Environment of a service: pass (list root name service). */}}
{{- define "toolbus.environment" -}}
{{- $root := index . 0 }}{{ $name := index . 1 }}{{ $service := index . 2 }}{{ $values := $root.Values -}}
- {name: TOOLBUS_STATE_DIR, value: /var/lib/toolbus}
{{ include "toolbus.natsEnv" $root }}
- {name: TOOLBUS_OPS_LISTEN, value: "0.0.0.0:8081"}
- {name: TOOLBUS_DRAIN_DELAY, value: {{ $service.drainDelay | quote }}}
- {name: TOOLBUS_DRAIN_SECONDS, value: {{ $service.drainSeconds | quote }}}
{{- range $file, $setting := index ($root.Files.Get "files/keys.yaml" | fromYaml) $name }}
{{- $directory := eq $setting "TOOLBUS_ENCRYPTION_DIR" }}
{{- if not (and (eq $setting "TOOLBUS_OAUTH_VAULT_FILE") (hasKey $service.settings "TOOLBUS_OAUTH_VAULT_KEY")) }}
- {name: {{ $setting }}, value: /var/lib/toolbus/keys/{{ ternary (dir $file) $file $directory }}}
{{- end }}
{{- end }}
{{- if has $name (list "ingress" "policy" "oauth") }}
- {name: TOOLBUS_PUBLIC_URL, value: {{ $values.publicUrl | quote }}}
{{- end }}
{{- if eq $name "ingress" }}
- {name: TOOLBUS_HTTP_HOST, value: "0.0.0.0"}
- {name: TOOLBUS_HTTP_PORT, value: "8080"}
- {name: TOOLBUS_ALLOWED_HOSTS, value: {{ include "toolbus.allowedHosts" $root | quote }}}
- {name: TOOLBUS_ALLOWED_ORIGINS, value: {{ prepend $values.allowedOrigins (trimSuffix "/" $values.publicUrl) | join "," | quote }}}
{{- if $values.service.tls.existingSecret }}
- {name: TOOLBUS_TLS_CERT, value: /etc/toolbus/tls/tls.crt}
- {name: TOOLBUS_TLS_KEY, value: /etc/toolbus/tls/tls.key}
{{- if $values.service.tls.clientCertificates }}
- {name: TOOLBUS_TLS_CLIENT_CA, value: /etc/toolbus/tls/ca.crt}
{{- end }}
{{- end }}
{{- else if eq $name "policy" }}
{{ include "toolbus.url" (list "TOOLBUS_REDIS_URL" $values.valkey) }}
{{- else if and (eq $name "audit") (or $values.clickhouse.url $values.clickhouse.existingSecret) }}
{{ include "toolbus.url" (list "TOOLBUS_CLICKHOUSE_URL" $values.clickhouse) }}
{{- else if eq $name "oauth" }}
- {name: TOOLBUS_OAUTH_SIGNING_FILE, value: /var/lib/toolbus/signing/oauth-signing.json}
- {name: TOOLBUS_OAUTH_CLIENT_FILE, value: /var/lib/toolbus/signing/oauth-client.json}
- {name: TOOLBUS_OAUTH_IDENTITY_FILE, value: /var/lib/toolbus/signing/oauth-identity.json}
{{- end }}
{{- with $values.tracing }}
{{- if .endpoint }}
- {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ .endpoint | quote }}}
- {name: OTEL_TRACES_SAMPLER, value: {{ .sampler | quote }}}
- {name: OTEL_TRACES_SAMPLER_ARG, value: {{ .ratio | quote }}}
{{- end }}
{{- end }}
{{- range $setting, $value := $service.settings }}
- {name: {{ $setting }}, value: {{ $value | quote }}}
{{- end }}
{{- with $service.env }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "toolbus.fullname" -}}
{{- if eq .Release.Name .Chart.Name }}{{ .Chart.Name }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end -}}
{{- end -}}

{{/* Labels of an object: pass (list root component). */}}
{{- define "toolbus.labels" -}}
{{- $root := index . 0 -}}
{{ include "toolbus.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version }}
{{- end -}}

{{- define "toolbus.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ $root.Chart.Name }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
{{- with index . 1 }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{/* The values of a service with the defaults, as JSON: pass (list root name). */}}
{{- define "toolbus.service" -}}
{{- $root := index . 0 -}}
{{- mergeOverwrite (deepCopy $root.Values.defaults) (deepCopy (index $root.Values.services (index . 1))) | toJson -}}
{{- end -}}

{{- define "toolbus.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end -}}
{{- end -}}

{{- define "toolbus.podSecurity" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: {{ .Values.runAsUser }}
  runAsGroup: {{ .Values.runAsUser }}
  fsGroup: {{ .Values.runAsUser }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "toolbus.containerSecurity" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* Settings of the connection to NATS, of the services and of the Job. */}}
{{- define "toolbus.natsEnv" -}}
- {name: TOOLBUS_NATS_URL, value: {{ .Values.nats.url | quote }}}
{{- if .Values.nats.tls.existingSecret }}
- {name: TOOLBUS_NATS_CA, value: /etc/toolbus/nats/ca.crt}
{{- if .Values.nats.tls.clientCertificate }}
- {name: TOOLBUS_NATS_CERT, value: /etc/toolbus/nats/tls.crt}
- {name: TOOLBUS_NATS_KEY, value: /etc/toolbus/nats/tls.key}
{{- end }}
{{- end }}
{{- end -}}

{{- define "toolbus.natsVolume" -}}
{{- with .Values.nats.tls }}
{{- if .existingSecret }}
- name: nats-tls
  secret:
    secretName: {{ .existingSecret }}
    defaultMode: 0440
    items:
      - {key: ca.crt, path: ca.crt}
      {{- if .clientCertificate }}
      - {key: tls.crt, path: tls.crt}
      - {key: tls.key, path: tls.key}
      {{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The certificate of ingress. */}}
{{- define "toolbus.tlsVolume" -}}
- name: tls
  secret:
    secretName: {{ .existingSecret }}
    defaultMode: 0440
    items:
      - {key: tls.crt, path: tls.crt}
      - {key: tls.key, path: tls.key}
      {{- if .clientCertificates }}
      - {key: ca.crt, path: ca.crt}
      {{- end }}
{{- end -}}

{{/* A URL from the values, or from a Secret: pass (list name values). */}}
{{- define "toolbus.url" -}}
{{- $values := index . 1 -}}
- name: {{ index . 0 }}
{{- if $values.existingSecret }}
  valueFrom: {secretKeyRef: {name: {{ $values.existingSecret }}, key: {{ $values.existingSecretKey }}}}
{{- else }}
  value: {{ $values.url | quote }}
{{- end }}
{{- end -}}

{{/* The host of the public URL, without its port. */}}
{{- define "toolbus.publicHost" -}}
{{- regexReplaceAll ":[0-9]+$" (urlParse .Values.publicUrl).host "" -}}
{{- end -}}

{{- define "toolbus.allowedHosts" -}}
{{- $service := printf "%s-ingress" (include "toolbus.fullname" .) -}}
{{- $inside := list $service (printf "%s.%s" $service .Release.Namespace) (printf "%s.%s.svc" $service .Release.Namespace) -}}
{{- concat (list (include "toolbus.publicHost" .)) $inside .Values.allowedHosts | uniq | join "," -}}
{{- end -}}

{{/* What a schema cannot express: values that do not fit together. */}}
{{- define "toolbus.checks" -}}
{{- $values := .Values -}}
{{- if not (or $values.valkey.url $values.valkey.existingSecret) }}
{{- fail "Policy needs Valkey: set valkey.url, or valkey.existingSecret if the URL has a password." }}
{{- end }}
{{- $audit := include "toolbus.service" (list . "audit") | fromJson }}
{{- if not (or $values.clickhouse.url $values.clickhouse.existingSecret) }}
{{- if or (ne $audit.state.type "persistentVolumeClaim") (gt (int $audit.replicas) 1) (ne $audit.autoscaling.type "none") }}
{{- fail "The embedded engine of audit allows one replica, whose data must be kept: set clickhouse.url or clickhouse.existingSecret; or services.audit.replicas=1, services.audit.autoscaling.type=none and services.audit.state.type=persistentVolumeClaim." }}
{{- end }}
{{- end }}
{{- $oauth := include "toolbus.service" (list . "oauth") | fromJson }}
{{- if and (ne $values.signingKeys.accessMode "ReadWriteMany") (or (gt (int $oauth.replicas) 1) (ne $oauth.autoscaling.type "none")) }}
{{- fail "Several replicas of oauth write one set of signing keys: set signingKeys.accessMode=ReadWriteMany with a storage class that supports it, or services.oauth.replicas=1 and services.oauth.autoscaling.type=none." }}
{{- end }}
{{- range $name := keys $values.services }}
{{- $service := include "toolbus.service" (list $ $name) | fromJson }}
{{- if and (eq $service.autoscaling.type "keda") (hasKey ($.Files.Get "files/load.yaml" | fromYaml) $name) (not $values.keda.prometheusAddress) }}
{{- fail (printf "KEDA reads the load of %s from Prometheus: set keda.prometheusAddress, or services.%s.autoscaling.type=hpa." $name $name) }}
{{- end }}
{{- if gt (int $service.autoscaling.minReplicas) (int $service.autoscaling.maxReplicas) }}
{{- fail (printf "services.%s.autoscaling.minReplicas is more than maxReplicas: lower it." $name) }}
{{- end }}
{{- end }}
{{- if and $values.exposure.httpRoute.enabled (not $values.exposure.httpRoute.parentRefs) }}
{{- fail "A HTTPRoute needs a Gateway: set exposure.httpRoute.parentRefs." }}
{{- end }}
{{- end -}}

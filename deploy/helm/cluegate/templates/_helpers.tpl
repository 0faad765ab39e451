{{- define "cluegate.name" -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end }}

{{- define "cluegate.selector" -}}
app.kubernetes.io/name: cluegate
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "cluegate.labels" -}}
{{ include "cluegate.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- end }}

{{- define "cluegate.hasStore" -}}
{{- if or .Values.store.url .Values.store.existingSecret }}yes{{ end -}}
{{- end }}

{{- define "cluegate.hasAdmin" -}}
{{- if or .Values.admin.keys .Values.admin.existingSecret }}yes{{ end -}}
{{- end }}

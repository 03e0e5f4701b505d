{{- define "mumian.name" -}}
{{ printf "%s-mumian" .Release.Name | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "mumian.selector" -}}
app.kubernetes.io/name: mumian-site
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "mumian.labels" -}}
{{ include "mumian.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "mumian.image" -}}
image: {{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end }}

{{/* Of a pod that runs tasks: nothing in it may speak to the Kubernetes API. */}}
{{- define "mumian.pod" -}}
automountServiceAccountToken: false
{{- if .Values.topology.fromNodeLabels }}
serviceAccountName: {{ include "mumian.name" . }}
{{- end }}
enableServiceLinks: false
hostNetwork: {{ .Values.hostNetwork }}
dnsPolicy: {{ .Values.hostNetwork | ternary "ClusterFirstWithHostNet" "ClusterFirst" }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
# The agent ends its tasks within their grace, and its Ray.
terminationGracePeriodSeconds: 60
{{- end }}

{{- define "mumian.apart" -}}
affinity:
  podAntiAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      - topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            {{- include "mumian.selector" . | nindent 12 }}
            mumian.dev/runs-tasks: "true"
{{- end }}

{{- define "mumian.scratch" -}}
- name: tmp
  emptyDir: {}
- name: shared-memory
  emptyDir:
    medium: Memory
    sizeLimit: {{ .Values.sharedMemory }}
{{- end }}

{{- define "mumian.scratchMounts" -}}
- name: tmp
  mountPath: /tmp
- name: shared-memory
  mountPath: /dev/shm
{{- end }}

{{/* Reads where the pod's machine is in the site. It runs before any task does, and alone has a token. */}}
{{- define "mumian.placeContainer" -}}
- name: place
  {{- include "mumian.image" . | nindent 2 }}
  command:
    - sh
    - -euc
    - |
      mumian-agent kubernetes-place --api "https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT" --node "$NODE_NAME" \
        {{- range .Values.topology.switchLabels }}
        --switch-label {{ . | squote }} \
        {{- end }}
        {{- range .Values.topology.rackLabels }}
        --rack-label {{ . | squote }} \
        {{- end }}
        > /place/place.sh
  env:
    - name: NODE_NAME
      valueFrom:
        fieldRef:
          fieldPath: spec.nodeName
  volumeMounts:
    - name: place
      mountPath: /place
    - name: kubernetes
      mountPath: /var/run/secrets/kubernetes.io/serviceaccount
      readOnly: true
    - name: tmp
      mountPath: /tmp
{{- end }}

{{- define "mumian.placeVolumes" -}}
- name: place
  emptyDir: {}
- name: kubernetes
  projected:
    sources:
      - serviceAccountToken:
          path: token
          expirationSeconds: 600
      - configMap:
          name: kube-root-ca.crt
          items:
            - key: ca.crt
              path: ca.crt
{{- end }}

// A small Kubernetes API server for tests, of the machinery that the real one is made of (k8s.io/apiserver): its
// registry, its watch cache over etcd with streaming lists, its patches, and its admission chain with
// ValidatingAdmissionPolicy. It serves the few kinds that routelet has to do with, as kinds.go lists them.
//
// What is not Kubernetes' own here: kinds are stored as the API's own types and not validated (store.go), tokens stand in
// a file (tokens.go), and every user may do everything, so that what is refused is refused by admission alone.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission/plugin/namespace/lifecycle"
	policy "k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/authentication/request/bearertoken"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	"k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/options"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/apiserver/pkg/util/compatibility"
	"k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"
)

var (
	address     = flag.String("bind-address", "127.0.0.1", "address to serve on")
	port        = flag.Int("secure-port", 6443, "port to serve on")
	certificate = flag.String("tls-cert-file", "", "the server's certificate")
	key         = flag.String("tls-private-key-file", "", "its key")
	etcdServer  = flag.String("etcd-servers", "http://127.0.0.1:2379", "URL of etcd")
	tokenFile   = flag.String("token-file", "", "who may come, see tokens.go")
)

func main() {
	klog.InitFlags(nil)
	flag.Parse()
	if err := run(server.SetupSignalContext()); err != nil {
		fmt.Fprintln(os.Stderr, "api-machinery:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	config := server.NewConfig(codecs)
	config.EffectiveVersion = compatibility.DefaultBuildEffectiveVersion()
	config.OpenAPIV3Config = schemas()
	config.SkipOpenAPIInstallation = true
	config.PublicAddress = net.ParseIP(*address)
	config.Authentication.Authenticator = bearertoken.New(tokens(*tokenFile))
	config.Authorization.Authorizer = authorizerfactory.NewAlwaysAllowAuthorizer()

	serving := options.NewSecureServingOptions().WithLoopback()
	serving.BindAddress = config.PublicAddress
	serving.BindPort = *port
	serving.ServerCert.CertKey = options.CertKey{CertFile: *certificate, KeyFile: *key}
	if err := serving.ApplyToConfig(config); err != nil {
		return err
	}

	storage := options.NewEtcdOptions(storagebackend.NewDefaultConfig("/registry", storageCodec()))
	storage.StorageConfig.Transport.ServerList = []string{*etcdServer}
	if err := storage.ApplyTo(config); err != nil {
		return err
	}

	client, err := kubernetes.NewForConfig(config.LoopbackClientConfig)
	if err != nil {
		return err
	}
	dynamicClient, err := dynamic.NewForConfig(config.LoopbackClientConfig)
	if err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactory(client, 10*time.Minute)
	admission := options.NewAdmissionOptions()
	admission.RecommendedPluginOrder = []string{lifecycle.PluginName, policy.PluginName}
	err = admission.ApplyTo(config, factory, client, dynamicClient, feature.DefaultFeatureGate, config.EffectiveVersion)
	if err != nil {
		return err
	}

	generic, err := config.Complete(factory).New("api-machinery", server.NewEmptyDelegate())
	if err != nil {
		return err
	}
	if err := install(generic, config.RESTOptionsGetter); err != nil {
		return err
	}
	generic.AddPostStartHookOrDie("namespaces", func(hook server.PostStartHookContext) error {
		return makeNamespaces(hook, client)
	})
	return generic.PrepareRun().RunWithContext(ctx)
}

// makeNamespaces makes those that every cluster has.
func makeNamespaces(ctx context.Context, client kubernetes.Interface) error {
	for _, name := range []string{"default", "kube-system"} {
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
		_, err := client.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{})
		if err != nil && !errors.IsAlreadyExists(err) {
			return err
		}
	}
	return nil
}

import java.io.File;
import java.net.URL;
import java.net.URLClassLoader;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/**
 * Calls a main class from within a URLClassLoader over the class path in the system property `main.class.path`.
 *
 * Hive up to 3.1 casts the loader of its classes to URLClassLoader, which the application loader has not been since Java 9.
 */
public final class UrlClassLoaderMain {
  public static void main(String[] arguments) throws Exception {
    List<URL> urls = new ArrayList<>();
    for (String entry : System.getProperty("main.class.path").split(File.pathSeparator)) {
      if (entry.endsWith(File.separator + "*")) {
        File[] jars = new File(entry).getParentFile().listFiles((directory, name) -> name.endsWith(".jar"));
        Arrays.sort(jars);
        for (File jar : jars) {
          urls.add(jar.toURI().toURL());
        }
      } else {
        urls.add(new File(entry).toURI().toURL());
      }
    }
    ClassLoader loader = new URLClassLoader(urls.toArray(new URL[0]), ClassLoader.getPlatformClassLoader());
    Thread.currentThread().setContextClassLoader(loader);
    String[] rest = Arrays.copyOfRange(arguments, 1, arguments.length);
    loader.loadClass(arguments[0]).getMethod("main", String[].class).invoke(null, (Object) rest);
  }
}

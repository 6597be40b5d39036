package app;

import java.util.List;
import java.util.Map;

import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.security.core.Authentication;
import org.springframework.security.core.GrantedAuthority;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.RestController;

/** An API that takes access tokens; all that it is told is in application.yml. */
@SpringBootApplication
@RestController
public class App {
    public static void main(String[] args) {
        SpringApplication.run(App.class, args);
    }

    @GetMapping("/me")
    Map<String, Object> me(Authentication caller) {
        List<String> scopes = caller.getAuthorities().stream().map(GrantedAuthority::getAuthority)
            .filter(authority -> authority.startsWith("SCOPE_")).sorted().toList();
        return Map.of("sub", caller.getName(), "scopes", scopes);
    }
}
